"""What was written for and by commit b4c8542, the version before the package's present rooms.

`written_by_b4c8542/` holds what that version left: a run stopped after step 7 of 20 and its shards,
the first part of a folder of shards and of an extraction, the weights at which the run ended there;
make.sh says how they were made. Also its configs without their comments, and its public names:
`__all__` of every package and what its docs import.
"""

import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from safetensors.torch import load_file

from lightsae.activations import ActivationDataModule, Manifest, ShardSet, ShardWriter
from lightsae.activations.extraction.extract import extract
from lightsae.cli import main
from lightsae.sae import SparseAutoencoder
from lightsae.training import MetricsFile, SAEModule

WRITTEN = Path(__file__).parent / "written_by_b4c8542"
NAMES: dict[str, list[str]] = yaml.safe_load((WRITTEN / "public_names.yaml").read_text())
CONFIGS = yaml.safe_load((WRITTEN / "configs.yaml").read_text())


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    folder = tmp_path / "written"
    shutil.copytree(WRITTEN, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("package", NAMES)
def test_every_public_name_is_still_there(package: str) -> None:
    if package == "lightsae_kernels.fused":
        pytest.importorskip("triton")
    module = import_module(package)
    assert [name for name in NAMES[package] if not hasattr(module, name)] == []


@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith("extract-")])
def test_every_config_of_a_run_is_still_one(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(yaml.safe_dump(CONFIGS[name]))
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--config", str(tmp_path / name), "--print_config"])
    assert caught.value.code == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert within(CONFIGS[name], found)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith("extract-")])
def test_every_config_of_an_extraction_is_still_one(name: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(extract)
    found = parser.parse_object(CONFIGS[name])
    assert within(CONFIGS[name], yaml.safe_load(parser.dump(found)))


def within(given: object, found: object) -> bool:
    """Whether every setting that is given is among those that were understood."""
    if isinstance(given, dict):
        return isinstance(found, dict) and all(
            key in found and within(value, found[key]) for key, value in given.items()
        )
    return given == found


def test_a_run_goes_on_and_ends_where_it_ended(written: Path) -> None:
    assert main(["fit", "--config", "fit.yaml", "--run_dir", "run"]) == 0
    expected = load_file(written / "whole.safetensors")
    found = SparseAutoencoder.load("run/sae").state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():  # products round otherwise on another processor
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    steps = [row["step"] for row in MetricsFile("run/metrics.jsonl").rows()]
    assert steps == [*range(10), 9, *range(10, 20), 19]


def test_a_run_is_evaluated(written: Path) -> None:
    for word in ("validate", "test", "predict"):
        assert main([word, "--config", "fit.yaml", "--run_dir", "run"]) == 0


def test_its_checkpoint_and_its_autoencoder_are_the_same(written: Path) -> None:
    sae = SparseAutoencoder.load("run/sae")
    module = SAEModule.load_from_checkpoint("run/checkpoints/last.ckpt")
    for name, tensor in sae.state_dict().items():
        assert torch.equal(module.sae.state_dict()[name], tensor)
    assert (type(module.regularizer).__name__, module.sae.selection.k) == ("OffSupportL1", 2)
    assert main(["export", "run/checkpoints/last.ckpt", "--out", "alone"]) == 0
    assert torch.equal(SparseAutoencoder.load("alone").W_dec, sae.W_dec)


def test_shards_are_read(written: Path) -> None:
    assert main(["shards", "verify", "shards", "--show_progress", "false"]) == 0
    assert ShardSet("shards").manifest.digest() == Manifest.load("shards").digest()
    data = ActivationDataModule("shards", batch_size=30)
    data.setup()
    rows = torch.cat([batch.sample_index for batch in data.predict_dataloader()])
    assert rows.tolist() == [row // 2 for row in range(100)]


def test_a_folder_of_shards_that_was_begun_goes_on(written: Path) -> None:
    wanted = Manifest(d_in=4, dtype="float16", model="made up", layer="blocks.3")
    with ShardWriter("half", wanted, rows_per_shard=40, chunk_rows=20) as writer:
        assert writer.manifest.progress == {"parts": 2}
        writer.write(torch.ones(10, 4), torch.arange(10))
    assert Manifest.load("half").rows == 50


def test_an_extraction_that_was_begun_goes_on(written: Path) -> None:
    stand_ins = "tests.activations.stand_ins"
    words = ["--model.module", f"{stand_ins}.Activated", "--model.arguments", "{kind: ReLU}",
             "--data.dataset", f"{stand_ins}.Noise", "--data.arguments", "{count: 40, bad: [33]}",
             "--layer", "0", "--tokens", "pooled", "--dtype", "float32", "--batch_size", "5",
             "--rows_per_shard", "25", "--out", "extraction"]  # fmt: skip
    before = Path("extraction/shard-00000.h5").read_bytes()
    assert main(["extract", *words, "--on_error", "skip"]) == 0
    manifest = Manifest.load("extraction")
    assert (manifest.complete, manifest.rows) == (True, 39)
    assert Path("extraction/shard-00000.h5").read_bytes() == before
