"""The HTML file: text is escaped, arrays come back, everything is inside, sizes hold."""

import base64
import gzip
import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.report import ReportOptions, build_report
from lightsae.report.page.packing import ArrayPack, json_text
from lightsae.report.page.render import cell_text
from lightsae.report.reading.comparison import Cell, Column
from lightsae.runs.sweep import Result, SweepFile, choose_weight
from lightsae.runs.sweep.grid import Point

from ..conftest import CLASSES
from ..helpers import E, write_run, write_shards


def contents(page: Path) -> dict:
    found = re.search(r'id="contents">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(found[1])


def arrays(page: Path) -> dict[str, np.ndarray]:
    text = re.search(r'id="arrays">(.*?)</script>', page.read_text(), re.DOTALL)[1]
    raw = gzip.decompress(base64.b64decode(text))
    return {
        name: np.frombuffer(raw, each["kind"], int(np.prod(each["shape"])), each["offset"])
        .reshape(each["shape"])
        for name, each in contents(page)["index"].items()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.array([3, 70_000]), "uint32"),
        (np.array([[3, 65_535]]), "uint16"),
        (np.array([[-1, 4]]), "int32"),
        (np.array([0.5, np.nan]), "float32"),
        (np.array([True, False]), "uint8"),
        (np.zeros((0, 4), np.int64), "uint16"),
        (np.array([7], np.uint8), "uint8"),
        (np.array([1 << 40, 3]), "float64"),
        (np.array([1 << 31, -1]), "float64"),
        (np.array([(1 << 32) - 1]), "uint32"),
    ],
)
def test_arrays_are_packed_narrow_aligned_and_whole(array, kind):
    pack = ArrayPack()
    pack.add("odd", np.arange(3, dtype=np.uint8))
    pack.add("array", array)
    each = pack.index["array"]
    assert each["kind"] == kind
    assert each["offset"] % 8 == 0
    raw = gzip.decompress(base64.b64decode(pack.text()))
    found = np.frombuffer(raw, kind, array.size, each["offset"]).reshape(each["shape"])
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "&lt;", "\u2028", '"\\'])
def test_json_within_a_script_neither_ends_it_nor_changes(text):
    written = json_text({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert not re.search("[<>&\u2028]", written)


def test_names_of_classes_and_runs_are_escaped(made, page):
    text = page.read_text()
    assert CLASSES[0] not in text
    assert "alert(1)" in text  # as JSON, escaped
    assert contents(page)["runs"][0]["classes"] == CLASSES


NAN = torch.tensor([torch.nan])
ODD: dict[str, dict] = {
    "nothing": {},
    "an embedding without a source": {"about": {"embeddings": [{"name": E}]}},
    "one latent without a score": {
        "about": {"embeddings": [{"name": E}], "rows": 0},
        "scalars": {f"ms_mean/{E}": None, "r2": None},
        "latents": {f"ms/{E}": NAN, "firings": torch.tensor([0]), "purity_binary": NAN.clone(),
                    "main_class": torch.tensor([-1]), "top_samples": torch.full((1, 2), -1),
                    "top_values": torch.zeros(1, 2)},
    },
    "large numbers": {
        "about": {"rows": 10**11},
        "latents": {"firings": torch.tensor([2**33]), "top_samples": torch.tensor([[2**35]]),
                    "top_values": torch.ones(1, 1)},
    },
    "strongest images that are no table": {
        "latents": {"top_samples": torch.tensor([4]), "top_values": torch.tensor([1.0])},
    },
    "curves without a point": {
        "curves": {"firing_density": {"log10_low": [], "log10_high": [], "count": []},
                   "rank_profile": {"rank": [1.0], "activation": [float("nan")]}},
    },
}  # fmt: skip


def write_odd(kind: str, folder: Path) -> Path:
    """A run folder of which nothing is known but what `ODD` says, with one latent."""
    told = ODD[kind]
    about = {"d_sae": 1, **told.get("about", {})}
    parts = {name: told.get(name, {}) for name in ("scalars", "curves", "latents")}
    EvaluationResult(about, **parts).save(folder)
    return folder


@pytest.mark.parametrize("kind", ODD)
def test_an_evaluation_of_which_little_is_known_has_a_page(kind, tmp_path):
    run = write_odd(kind, tmp_path / "run")
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    assert contents(page)["runs"][0]["d_sae"] == 1
    if kind == "large numbers":
        found = arrays(page)
        assert (found["0/firings"][0], found["sample"][0]) == (2**33, 2**35)


def test_a_run_folder_with_a_name_of_markup(made, tmp_path):
    run = write_run(tmp_path / "<img src=x onerror=alert(1)>", made.shards)
    text = build_report(ReportOptions([run], tmp_path / "page.html")).read_text()
    assert "<img" not in text


def test_nothing_is_fetched(page):
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!#|data:)', text)
    assert "default-src 'none'" in text
    assert len(re.findall(r"<script>", text)) == 1
    assert "@import" not in text
    assert "url(http" not in text


def test_the_same_runs_give_the_same_bytes(made, page, tmp_path):
    again = build_report(ReportOptions([made.reg, made.baseline], tmp_path / "again.html"))
    assert again.read_bytes() == page.read_bytes()


def test_the_baseline_comes_first_and_runs_of_one_seed_are_paired(page):
    found = contents(page)
    assert [run["name"] for run in found["runs"]] == ["baseline", "reg"]
    assert {(pair["from"], pair["to"], pair["paired"]) for pair in found["pairs"]} == {
        (0, 1, True), (1, 0, True),
    }  # fmt: skip


def test_runs_of_other_seeds_are_matched_by_their_decoders(made, tmp_path):
    page = build_report(ReportOptions([made.baseline, made.other], tmp_path / "page.html"))
    found = arrays(page)
    assert not contents(page)["pairs"][0]["paired"]
    assert "0/to/1/paired" not in found
    assert found["0/to/1"].shape == (32,)
    assert found["0/to/1/cosine"].max() <= 1.0001


def test_arrays_are_those_of_the_evaluation(made, page):
    result, found = EvaluationResult.load(made.baseline), arrays(page)
    np.testing.assert_array_equal(found["0/firings"], result.latents["firings"])
    np.testing.assert_allclose(found[f"0/ms/{E}"], result.latents[f"ms/{E}"].numpy(), rtol=1e-6)
    shown = found["0/images"].astype(int)
    samples = np.where(shown > 0, found["sample"].astype(int)[np.maximum(shown - 1, 0)], -1)
    np.testing.assert_array_equal(samples[:, :10], result.latents["top_samples"][:, :10])


def test_a_page_stays_as_small_as_it_is_told_to(made, tmp_path):
    from ..helpers import write_images

    images = write_images(tmp_path / "i.npz", 400, ["a", "b"], side=100)
    run = write_run(tmp_path / "run", write_shards(tmp_path / "s", images, 400, ["a", "b"]))
    large = build_report(ReportOptions([run], tmp_path / "large.html"))
    small = build_report(ReportOptions([run], tmp_path / "small.html", max_mb=0.17))
    assert small.stat().st_size < 170_000 < large.stat().st_size
    side = [contents(each)["sheets"][0]["side"] for each in (small, large)]
    assert side[0] < side[1] == 100


def test_shards_that_are_gone_leave_the_strongest_images_as_numbers(made, tmp_path):
    shards = write_shards(tmp_path / "shards", made.images, 240, CLASSES)
    run = write_run(tmp_path / "run", shards)
    (shards / "manifest.json").unlink()
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    found = contents(page)
    assert found["runs"][0]["places"] == [10, 0, 0]
    assert any("has no manifest.json" in note for note in found["notes"])
    assert "numbers of samples stand for images" in " ".join(found["notes"])


def test_other_shards_in_the_same_place_are_not_read(made, tmp_path):
    run = write_run(tmp_path / "run", write_shards(tmp_path / "a", made.images, 240, CLASSES))
    import shutil

    shutil.rmtree(tmp_path / "a")
    write_shards(tmp_path / "a", made.images, 240, CLASSES, d_in=8, patches=2)
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    assert "other shards than those evaluated" in " ".join(contents(page)["notes"])


def test_an_autoencoder_of_another_size_is_refused(made, tmp_path):
    import shutil

    run = shutil.copytree(made.baseline, tmp_path / "run")
    other = write_run(tmp_path / "other", made.shards, d_sae=16)
    shutil.rmtree(run / "sae")
    shutil.copytree(other / "sae", run / "sae")
    with pytest.raises(LightsaeError, match="d_sae = 16, the evaluation beside it 32"):
        build_report(ReportOptions([run], tmp_path / "page.html"))


def test_more_runs_than_galleries(made, tmp_path):
    runs = [made.baseline, made.reg]
    runs += [write_run(tmp_path / f"run{n}", made.shards, seed=n + 1) for n in range(3)]
    page = build_report(ReportOptions(runs, tmp_path / "page.html"))
    found = contents(page)
    assert [run["name"] for run in found["runs"]] == ["baseline", "reg", "run0", "run1"]
    assert "5 runs are compared" in found["notes"][0]
    assert "4 seeds" in page.read_text()


@pytest.mark.parametrize(
    ("cell", "signed", "text"),
    [
        (Cell(0.9254), False, ".925"),
        (Cell(0.01), True, "+.010"),
        (Cell(-0.0004), True, "\u2212.0004"),
        (Cell(0.0), True, ".0000"),
        (Cell(float("nan")), True, "\u2013"),
        (Cell(0.5, 0.25), False, ".500 ± .250"),
    ],
)
def test_numbers_of_the_table(cell, signed, text):
    assert cell_text(cell, Column("R2", ""), signed) == text


def test_runs_of_other_rows_are_told_not_to_compare(made, tmp_path):
    page = build_report(ReportOptions([made.baseline, made.patches], tmp_path / "page.html"))
    told = "patch and baseline do not compare: they were measured on other shards"
    assert contents(page)["notes"][0] == told and told in page.read_text()


def test_what_a_sweep_chose_for_the_runs_of_the_page(made, tmp_path):
    points = [Point(k, 32, None, 0, "L1L2Ratio", 0.25) for k in (4, 8)]
    write_run(tmp_path / "members" / points[0].name, made.shards, weight=0.25)
    sweep = SweepFile(tmp_path / "sweep.json")
    sweep.add("grid", [Result(point, "trained", 9, None, {"r2": 0.5}) for point in points])
    choice = choose_weight("L1L2Ratio", {0.25: [0.01, 0.03]})
    sweep.finish([(point.setting, choice) for point in points])
    text = build_report(ReportOptions([tmp_path], tmp_path / "page.html")).read_text()
    assert "L1L2Ratio, k = 4, d_sae = 32: λ = 0.25 is the largest" in text
    assert "k = 8" not in text


def test_the_files_of_the_page_are_in_the_package():
    assets = files("lightsae.report.page") / "assets"
    names = {each.name for each in assets.iterdir()}
    assert {"page.html", "style.css", "main.js", "gallery.js"} <= names
