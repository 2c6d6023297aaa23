""" "What this latent does": on the page, in Chromium, and where it is not known."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightsae.activations.extraction.models import weights_hash
from lightsae.interventions import ClassEffects
from lightsae.interventions.class_effects.result import FILE, LogitChange
from lightsae.report import ReportOptions, build_report
from lightsae.report.page.class_effects import largest_changes
from lightsae.sae import SparseAutoencoder

from .conftest import CLASSES
from .page.test_page import arrays, contents

MINUS, PLUS_MINUS = "\u2212", "\u00b1"
SILENT = 3


def change(sign: float, classes: int) -> LogitChange:
    """Latent 5 lowers class 0 and raises class 1, the other never fires."""
    mean = torch.full((2, classes), 0.01)
    mean[0, :2] = torch.tensor([-0.42, 0.2]) * sign
    error, control, spread = (torch.full((2, classes), x) for x in (0.03, -0.01, 0.05))
    p_value = torch.full((2, classes), 8 / 21)
    p_value[0, 0] = 1 / 21
    mean[1] = error[1] = p_value[1] = torch.nan
    return LogitChange(mean, error, control, spread, p_value)


def write_effects(run: Path, classes: int = len(CLASSES), autoencoder: str | None = None) -> None:
    sae = SparseAutoencoder.load(run / "sae")
    ClassEffects(
        "blocks.1", autoencoder or weights_hash(sae), sae.d_sae, 120, 2.0, 0,
        torch.tensor([5, SILENT]), torch.tensor([40, 0]), torch.arange(8, 28).repeat(2, 1),
        change(1, classes), change(-1, classes),
    ).save(run)  # fmt: skip


@pytest.fixture
def run(made: SimpleNamespace, tmp_path: Path) -> Path:
    """A run with effects of its own."""
    return Path(shutil.copytree(made.baseline, tmp_path / "run"))


def test_the_largest_changes_of_either_sign_are_kept() -> None:
    torch.manual_seed(0)
    found = LogitChange(*torch.randn(4, 4, 10), p_value=torch.rand(4, 10))
    kept = largest_changes(found)
    for row, mean in enumerate(found.mean):
        order = mean.argsort(descending=True).tolist()
        up = [each for each in order[:3] if mean[each] > 0]
        down = [each for each in order[-3:] if mean[each] < 0]
        assert [each for each in kept["classes"][row].tolist() if each >= 0] == up + down
        for name, values in (found._asdict() | {"q_value": found.q_value}).items():
            shown = kept[name][row][kept["classes"][row] >= 0]
            assert torch.equal(shown, values[row][up + down])


def test_arrays_and_settings_are_in_the_page(run: Path, tmp_path: Path) -> None:
    write_effects(run)
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    assert contents(page)["runs"][0]["effects"] == {
        "layer": "blocks.1", "images": 120, "amplify": 2.0, "controls": 20, "named": True,
    }  # fmt: skip
    packed = arrays(page)
    assert packed["0/effects/latents"].tolist() == [5, SILENT]
    assert packed["0/effects/ablation/classes"].tolist()[0] == [1, 2, -1, -1, -1, 0]
    assert packed["0/effects/ablation/mean"][0, 5] == pytest.approx(-0.42)
    assert (packed["0/effects/ablation/classes"][1] == -1).all()
    assert CLASSES[0] not in page.read_text()


def test_effects_of_another_autoencoder_are_told_and_not_shown(run: Path, tmp_path: Path) -> None:
    write_effects(run, autoencoder="0" * 16)
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    assert contents(page)["runs"][0]["effects"] is None
    (note,) = [note for note in contents(page)["notes"] if FILE in note]
    assert note.startswith("run: not shown what latents do: ")
    assert "run `lightsae effects` again" in note


def test_without_effects_the_page_has_no_such_part(run: Path, tmp_path: Path) -> None:
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    assert contents(page)["runs"][0]["effects"] is None
    assert not [name for name in arrays(page) if "effects" in name]


@pytest.mark.slow
def test_an_open_latent_says_what_it_does(chromium, run: Path, tmp_path: Path) -> None:
    write_effects(run)
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    chromium.open(page, "#latent-0-5")
    chromium.wait_for("document.querySelector('dialog').open")
    part = "document.querySelector('.effects')"
    said = chromium.ask(f"[...{part}.querySelectorAll('.says')].map(each => each.textContent)")
    random = f"(random latents: {MINUS}.010 {PLUS_MINUS} .050; none of 20 changes it as much)."
    assert said == [
        f"Ablating it lowers {CLASSES[0]} by .420 {random}",
        f"Amplifying it 2 times raises {CLASSES[0]} by .420 {random}",
    ]
    tables = f"[...{part}.querySelectorAll('table')].map(table => [...table.tBodies[0].rows].map("
    cells = chromium.ask(f"{tables} row => [...row.cells].map(cell => cell.textContent)))")
    assert [[row[0] for row in table] for table in cells] == [
        [CLASSES[1], CLASSES[2], CLASSES[0]], [CLASSES[0], CLASSES[2], CLASSES[1]]
    ]  # fmt: skip
    assert cells[0][2][2:] == [
        f"{MINUS}.420 {PLUS_MINUS} .030", f"{MINUS}.010 {PLUS_MINUS} .050", ".048",
        f"{len(CLASSES) / 21:.3f}".removeprefix("0"),
    ]  # fmt: skip
    assert chromium.ask("document.querySelectorAll('.effects script').length") == 0
    bars = chromium.ask(
        f"[...{part}.querySelectorAll('rect.rise, rect.fall')].map(each => +each.getAttribute("
        "'width'))"
    )
    assert bars[2] == pytest.approx(95 * 0.42 / 0.45, rel=1e-4)
    assert bars[0] / bars[2] == pytest.approx(0.2 / 0.42, rel=1e-4)
    bands = chromium.ask(f"{part}.querySelectorAll('rect.band').length")
    assert bands == len(cells[0]) + len(cells[1]) == 6
    about = chromium.ask(f"{part}.querySelector('.caption').textContent")
    assert "over the 40 images of 120 where it fires" in about and "blocks.1" in about


@pytest.mark.slow
def test_latents_that_were_not_measured_say_so_and_logits_may_have_no_names(
    chromium, run: Path, tmp_path: Path
) -> None:
    write_effects(run, classes=7)
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    said = "document.querySelector('.effects')?.textContent"
    for latent, expected in [
        (4, "What this latent doesNot measured."),
        (SILENT, "What this latent doesNot measured: it fires on none of 120 images."),
    ]:
        chromium.open(page, f"#latent-0-{latent}")
        chromium.wait_for("document.querySelector('dialog').open")
        assert chromium.ask(said) == expected
    chromium.open(page, "#latent-0-5")
    chromium.wait_for("document.querySelector('dialog').open")
    assert re.match("What this latent doesAblating it lowers class 0 by .420", chromium.ask(said))
    chromium.resize(390, 844, phone=True)
    assert chromium.ask("document.documentElement.scrollWidth") == 390
    width = "document.querySelector('.effects').getBoundingClientRect().right"
    assert chromium.ask(width) <= 390
