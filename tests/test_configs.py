"""Every file in configs/ runs as it stands, on small stand-ins for models and data."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from safetensors.torch import save_file

from lightsae.activations import Manifest, ShardWriter
from lightsae.activations.extraction.extract import extract
from lightsae.cli import main

CONFIGS = Path(__file__).parent.parent / "configs"
PAPER = CONFIGS / "paper"
EXTRACT = sorted([*CONFIGS.glob("extract-*.yaml"), *PAPER.glob("extract-*.yaml")])
ONLINE = sorted(CONFIGS.glob("online-*.yaml"))
SWEEP = sorted(CONFIGS.glob("sweep-*.yaml"))
SEEDS = sorted(CONFIGS.glob("seeds-*.yaml"))
SELECTION = sorted((CONFIGS / "selection").glob("*.yaml"))
ANCHORED = sorted((CONFIGS / "anchored").glob("*.yaml"))
TRANSCODER = sorted(CONFIGS.glob("transcoder-*.yaml"))
STEERING = sorted((CONFIGS / "steering").glob("*.yaml"))
SCALING = sorted((CONFIGS / "scaling").glob("*.yaml"))
NAMING = sorted((CONFIGS / "naming").glob("*.yaml"))
# Too large for any one device: `lightsae plan` alone takes them.
PLANNED = sorted((CONFIGS / "planned").glob("*.yaml"))
FIT = sorted(set(CONFIGS.glob("*.yaml")) - {*EXTRACT, *ONLINE, *SWEEP, *SEEDS, *TRANSCODER})
NARROW = {"embed_dim": 32, "depth": 1, "num_heads": 2}


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    with ShardWriter(folder, Manifest(d_in=24, dtype="float16")) as writer:
        writer.write(torch.randn(400, 24), sample_index=torch.arange(400))
    return folder


# What a layer beyond the narrow blocks gives.
OWN_WIDTH = {"extract-clip": 768}


def write_images(folder: Path, count: int) -> None:
    image = pytest.importorskip("PIL.Image")
    folder.mkdir()
    for number in range(count):
        image.new("RGB", (40, 40), (50 * number, 10, 10)).save(folder / f"{number}.png")


# Lightning's model summary knows no bf16 sizes; that of fast_dev_run is shown all the same.
@pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary")
@pytest.mark.parametrize("config", FIT, ids=lambda path: path.stem)
def test_fit(config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status = main(
        ["fit", "--config", str(config), "--data.path", str(shards), "--trainer.devices", "1",
         "--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "true"]
    )  # fmt: skip
    assert status == 0


@pytest.mark.parametrize("config", SELECTION, ids=lambda path: path.stem)
def test_fit_with_a_selection_rule_in_a_second_file(
    config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = CONFIGS / "quickstart.yaml"
    words = ["fit", "--config", str(quick), "--config", str(config), "--data.path", str(shards)]
    options = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    schedule = ["--model.lr_scheduler.warmup_steps", "0", "--model.lr_scheduler.decay_steps", "0"]
    run = [
        "--run_dir",
        "run",
        "--model.aux_k.dead_after",
        "100",
        "--trainer.accelerator",
        "cpu",
        "--trainer.log_every_n_steps",
        "1",
    ]
    assert main([*words, *options, *schedule, *run]) == 0
    given = yaml.safe_load(config.read_text())["model"]["init_args"]
    found = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["init_args"]
    assert {key: found.get(key) for key in given} == given


@pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary")
@pytest.mark.parametrize("config", ONLINE, ids=lambda path: path.stem)
def test_fit_beside_a_narrow_model_of_the_same_class(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", 5)
    given = yaml.safe_load(config.read_text())["data"]["init_args"]["model"]["arguments"]
    status = main(
        ["fit", "--config", str(config), "--data.data.folder", "images", "--data.model.pretrained",
         "false", "--data.model.arguments", str(given | NARROW), "--data.workers", "0",
         "--trainer.devices", "1", "--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "true"]
    )  # fmt: skip
    assert status == 0


# As above.
@pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary")
@pytest.mark.parametrize("config", ANCHORED, ids=lambda path: path.stem)
def test_fit_with_an_anchor(
    config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({"vectors": torch.randn(30, 24)}, "concepts.safetensors")
    status = main(
        ["fit", "--config", str(config), "--data.path", str(shards), "--model.anchor.vocabulary",
         "concepts.safetensors", "--trainer.devices", "1", "--trainer.accelerator", "cpu",
         "--trainer.fast_dev_run", "true"]
    )  # fmt: skip
    assert status == 0


# As above.
@pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary")
@pytest.mark.parametrize("config", TRANSCODER, ids=lambda path: path.stem)
def test_fit_of_a_transcoder(
    config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ShardWriter(tmp_path / "targets", Manifest(d_in=16, dtype="float16")) as writer:
        writer.write(torch.randn(400, 16), sample_index=torch.arange(400))
    status = main(
        ["fit", "--config", str(config), "--data.path", str(shards), "--data.targets", "targets",
         "--trainer.devices", "1", "--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "true"]
    )  # fmt: skip
    assert status == 0


@pytest.mark.parametrize("config", SWEEP, ids=lambda path: path.stem)
def test_sweep(config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status = main(
        ["sweep", "--config", str(config), "--data.path", str(shards), "--data.batch_size", "64",
         "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--run_dir", "sweep",
         "--trainer.check_val_every_n_epoch", "1", "--trainer.log_every_n_steps", "1",
         "--model.aux_k.dead_after", "64", "--model.lr_scheduler.warmup_steps", "1",
         "--model.lr_scheduler.decay_steps", "2", "--sweep.weight", "[0.01]",
         "--sweep.seed", "[0, 1]"]
    )  # fmt: skip
    assert status == 0
    assert len(list((tmp_path / "sweep" / "members").iterdir())) == 2 * 3


@pytest.mark.parametrize("config", SEEDS, ids=lambda path: path.stem)
def test_seeds(config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status = main(
        ["sweep", "--config", str(config), "--data.path", str(shards), "--data.batch_size", "64",
         "--trainer.max_epochs", "1", "--run_dir", "seeds", "--trainer.check_val_every_n_epoch",
         "1", "--trainer.log_every_n_steps", "1", "--model.aux_k.dead_after", "64",
         "--model.lr_scheduler.warmup_steps", "1", "--model.lr_scheduler.decay_steps", "2"]
    )  # fmt: skip
    assert status == 0
    assert main(["compare", "seeds", "--out", "compared"]) == 0
    assert (tmp_path / "compared" / "stability.json").is_file()


@pytest.mark.parametrize("config", SCALING, ids=lambda path: path.stem)
def test_scaling(
    config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status = main(
        ["sweep", "--config", str(config), "--data.path", str(shards), "--data.batch_size", "64",
         "--trainer.max_epochs", "1", "--run_dir", "sweep", "--trainer.check_val_every_n_epoch",
         "1", "--trainer.log_every_n_steps", "1", "--model.aux_k.dead_after", "64",
         "--model.lr_scheduler.warmup_steps", "1", "--model.lr_scheduler.decay_steps", "2",
         "--sweep.k", "[2]", "--sweep.d_sae", "[8, 16, 32]", "--sweep.seed", "[0]"]
    )  # fmt: skip
    assert status == 0
    assert main(["scaling", "sweep", "--out", "law", "--draws", "20"]) == 0
    assert (tmp_path / "law" / "scaling.json").is_file()


# Recipes of Whisper need its weights; tests/interventions/whisper/test_recipes.py reads them.
def test_steer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIGS / "steering" / "planted.yaml"
    monkeypatch.chdir(tmp_path)
    assert main(["steer", "--config", str(config), "--out", "steering"]) == 0
    found = json.loads((tmp_path / "steering" / "steering.json").read_text())
    assert found["outcome"] == "works"


@pytest.mark.parametrize("config", PLANNED, ids=lambda path: path.stem)
def test_plan(config: Path, tmp_path: Path) -> None:
    words = ["plan", "--config", str(config), "--gpu", "H200", "--nodes", "4", "--d_in", "768"]
    out = tmp_path / "plan.json"
    assert main([*words, "--gpus_per_node", "8", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["chosen"] is not None


@pytest.mark.parametrize("config", EXTRACT, ids=lambda path: path.stem)
def test_extract_settings_are_understood(config: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(extract)
    settings = parser.parse_object(yaml.safe_load(config.read_text()))
    written = yaml.safe_load(config.read_text())
    assert settings.as_dict()["model"]["name"] == written["model"]["name"]
    assert {key: str(settings[key]) for key in ("layer", "tokens", "dtype", "out")} == {
        key: written[key] for key in ("layer", "tokens", "dtype", "out")
    }


@pytest.mark.parametrize("config", EXTRACT, ids=lambda path: path.stem)
def test_extract_on_a_narrow_model_of_the_same_class(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", 3)
    name = yaml.safe_load(config.read_text())["model"]["name"]
    status = main(
        ["extract", "--config", str(config), "--data.folder", "images", "--model.pretrained",
         "false", "--model.arguments", str(NARROW), "--workers", "0", "--device", "cpu"]
    )  # fmt: skip
    assert status == 0
    manifest = Manifest.load(tmp_path / yaml.safe_load(config.read_text())["out"])
    width = OWN_WIDTH.get(config.stem, 32)
    assert (manifest.model, manifest.rows, manifest.d_in) == (name, 3, width)


def test_the_grid_of_the_paper(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status = main(
        ["sweep", "--config", str(PAPER / "sweep.yaml"), "--data.path", str(shards),
         "--data.batch_size", "64", "--data.val_fraction", "0.2", "--trainer.accelerator", "cpu",
         "--trainer.precision", "32-true", "--trainer.max_epochs", "1", "--run_dir", "sweep",
         "--trainer.check_val_every_n_epoch", "1", "--trainer.log_every_n_steps", "1",
         "--model.d_sae", "48", "--model.aux_k.dead_after", "20", "--sweep.k",
         "[2]", "--sweep.seed", "[0]"]
    )  # fmt: skip
    assert status == 0
    kept = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert {(each["k"], each["variant"]) for each in kept["choices"]} == {
        (2, name) for name in ("OffSupportL1", "L1L2Ratio")
    }


@pytest.mark.parametrize(
    "config",
    [
        *FIT,
        *ANCHORED,
        *TRANSCODER,
        *SELECTION,
        *EXTRACT,
        *ONLINE,
        *SWEEP,
        *STEERING,
        *NAMING,
        *SCALING,
        *PLANNED,
        PAPER / "sweep.yaml",
    ],
    ids=lambda path: path.stem,
)
def test_every_key_is_explained(config: Path) -> None:
    lines = config.read_text().splitlines()
    structural = (
        "class_path:", "init_args:", "model:", "data:", "trainer:", "selection:", "optimizer:",
        "source:", "reconstruction:", "lr_scheduler:", "sweep:", "task:",
    )  # fmt: skip
    unexplained = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line.strip()
        and not line.strip().startswith(("#", *structural))
        and not before.strip().startswith("#")
    ]
    assert [line.strip() for line in unexplained] == []
