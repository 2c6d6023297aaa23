"""Names of a run's latents: on the page, in Chromium, and where they are of another autoencoder."""

import shutil
from dataclasses import replace
from math import isnan
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightsae.activations.extraction.models import weights_hash
from lightsae.dictionaries import LatentNames
from lightsae.report import ReportOptions, build_report
from lightsae.report.reading.comparison import compare
from lightsae.report.reading.run_inputs import read_runs
from lightsae.sae import SparseAutoencoder

from .page.test_page import arrays, contents
from .test_browser import IN_ORDER, OPEN, TITLE

WORDS = ["unused", "<img src=x onerror=alert(1)>", "tab\tby", "oak"]


def names_of(run: Path) -> LatentNames:
    """Latent 5 is called by what looks like markup, 6 by an odd word; 7 is below the cut-off."""
    sae = SparseAutoencoder.load(run / "sae")
    candidates = torch.tensor([[3, 2]]).repeat(sae.d_sae, 1)
    scores = torch.tensor([[0.3, 0.1]]).repeat(sae.d_sae, 1)
    candidates[5], scores[5] = torch.tensor([1, 2]), torch.tensor([0.93, 0.25])
    candidates[6], scores[6] = torch.tensor([2, -1]), torch.tensor([0.85, torch.nan])
    return LatentNames(
        WORDS, candidates, scores, alive=torch.ones(sae.d_sae, dtype=torch.bool), cutoff=0.8,
        about={"autoencoder": weights_hash(sae)},
    )  # fmt: skip


@pytest.fixture
def run(made: SimpleNamespace, tmp_path: Path) -> Path:
    """A run with names of its own."""
    folder = Path(shutil.copytree(made.baseline, tmp_path / "run"))
    names_of(folder).save(folder)
    return folder


def test_only_sure_names_and_their_words_are_in_the_page(run: Path, tmp_path: Path) -> None:
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    told = contents(page)["runs"][0]["names"]
    assert told["words"] == [WORDS[1], "tab\\tby"]
    assert (told["measure"], told["cutoff"], told["named"], told["alive"]) == ("cosine", 0.8, 2, 32)
    assert told["alignment_rate"] == 2 / 32 and told["coverage"] == 0.5
    packed = arrays(page)["0/names/words"]
    assert packed[5].tolist() == [0, 1] and packed[6].tolist() == [1, -1]
    assert (packed[7] == -1).all()
    text = page.read_text()
    assert WORDS[1] not in text and "2 of 32 alive latents have a name" in text
    assert "alignment rate 0.062, cosine at least 0.8" in text


def test_names_of_another_autoencoder_are_told_and_not_shown(run: Path, tmp_path: Path) -> None:
    replace(names_of(run), about={"autoencoder": "0" * 16}).save(run)
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    assert contents(page)["runs"][0]["names"] is None
    (note,) = [note for note in contents(page)["notes"] if "latent_names.json" in note]
    assert note.startswith("run: names of latents are not shown: ")
    assert "run `lightsae name` again" in note


def test_a_damaged_file_is_told_and_not_shown(run: Path, tmp_path: Path) -> None:
    (run / "latent_names.json").write_text("{")
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    assert contents(page)["runs"][0]["names"] is None
    assert [note for note in contents(page)["notes"] if "is not JSON" in note]


def test_the_table_has_the_share_of_named_latents_of_each_rule(
    made: SimpleNamespace, run: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(made.reg, tmp_path / "reg"))
    names = names_of(other)
    names.save(other)
    table = compare(read_runs([run, other]), 0)
    place = [column.title for column in table.columns].index("named, cosine at least 0.8")
    assert [row.cells[place].mean for row in table.rows] == [2 / 32, 2 / 32]
    assert table.differences[0].cells[place].mean == 0
    names.with_cutoff(0.9).save(other)  # another rule is another column
    table = compare(read_runs([run, other]), 0)
    titles = [column.title for column in table.columns]
    place = titles.index("named, cosine at least 0.9")
    assert isnan(table.rows[0].cells[place].mean) and table.rows[1].cells[place].mean == 1 / 32
    replace(names, about={"autoencoder": "0" * 16}).save(other)
    (run / "latent_names.json").write_text("{")
    assert not [c for c in compare(read_runs([run, other]), 0).columns if "named" in c.title]


def test_without_names_the_page_has_none(made: SimpleNamespace, page: Path) -> None:
    assert all(run["names"] is None for run in contents(page)["runs"])
    assert "alive latents have a name" not in page.read_text()


@pytest.mark.slow
def test_names_are_searched_shown_as_text_and_give_way_to_the_readers(
    chromium, run: Path, tmp_path: Path
) -> None:
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    chromium.open(page)
    chromium.ask("document.querySelector('#search').focus()")
    chromium.type("img src")
    assert chromium.ask(IN_ORDER) == [5]
    rows = "[...document.querySelectorAll('.row')].map(row => row.querySelector('b').textContent)"
    assert chromium.ask(rows) == [f"{WORDS[1]} · #5"]
    chromium.open(page)
    chromium.choose("#status", "named")
    assert sorted(chromium.ask(IN_ORDER)) == [5, 6]
    chromium.choose("#sort", "name")
    assert chromium.ask(IN_ORDER) == [5, 6]
    chromium.open(page, "#latent-0-5")
    chromium.wait_for(OPEN)
    assert chromium.ask("document.querySelectorAll('dialog img').length") == 0
    words = chromium.ask("document.querySelector('.naming .words').textContent")
    assert words == f"{WORDS[1]}: cosine .930; next tab\\tby .250"
    chromium.ask("document.querySelector('.naming input').focus()")
    chromium.type("mine")
    chromium.press("Tab")
    assert chromium.ask(TITLE) == "mine · #5"
