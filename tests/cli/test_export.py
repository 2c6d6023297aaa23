"""`lightsae export`: the folder of an autoencoder from any checkpoint."""

from pathlib import Path

import pytest
import torch

from lightsae.activations import ActivationDataModule
from lightsae.cli import main
from lightsae.sae import SparseAutoencoder
from lightsae.training import AtomicCheckpointIO, read_checkpoint

from ..training.helpers import finish, make_data, make_module, make_trainer, start_pair
from .helpers import Ask, files


def test_a_run_s_checkpoint_is_exported_as_the_run_saved_it(run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "last.ckpt"
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes(checkpoint.read_bytes())
    assert main(["export", str(alone), "--out", str(tmp_path / "sae")]) == 0
    assert files(tmp_path / "sae") == files(run / "sae")


def test_it_says_what_it_wrote(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sae"
    assert main(["export", str(run / "checkpoints" / "last.ckpt"), "--out", str(out)]) == 0
    assert capsys.readouterr().err == (
        f"{out}: d_in 6, d_sae 24, TopK k = 3, variance, of step 20\n"
    )


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_is_exported_too(config: Path, tmp_path: Path) -> None:
    words = ("fit", "--config", config, "--run_dir", tmp_path / "run", "--trainer.max_epochs", 1)
    assert finish(*start_pair(*words)) == [0, 0]
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert main(["export", str(path), "--out", str(tmp_path / "sae")]) == 0
    assert files(tmp_path / "sae") == files(tmp_path / "run" / "sae")


def test_the_precision_stays(shards: Path, tmp_path: Path) -> None:
    module = make_module()
    make_trainer(tmp_path, max_epochs=1, precision="64-true").fit(module, make_data(shards))
    assert main(["export", str(tmp_path / "last.ckpt"), "--out", str(tmp_path / "sae")]) == 0
    found = SparseAutoencoder.load(tmp_path / "sae")
    assert torch.equal(found.W_dec, module.sae.W_dec)


def test_an_older_run_s_folder_tells_what_its_checkpoint_does_not(
    config: Path, tmp_path: Path, line: Ask
) -> None:
    run = tmp_path / "run"
    words = ["fit", "--config", str(config), "--run_dir", str(run), "--trainer.max_epochs=1"]
    assert main(words) == 0
    path = run / "checkpoints" / "last.ckpt"
    content = read_checkpoint(path)
    for key in ("selection", "normalization", "regularizer", "aux_k", "hyper_parameters"):
        del content[key]
    AtomicCheckpointIO().save_checkpoint(content, path)
    assert main(["export", str(path), "--out", str(tmp_path / "sae")]) == 0
    assert files(tmp_path / "sae") == files(run / "sae")
    (run / "config.yaml").unlink()
    status, text = line("export", path, "--out", tmp_path / "other")
    assert status == 1
    assert f"{path}: does not say its selection rule" in text


def test_an_autoencoder_that_is_there_is_not_written_over(
    run: Path, config: Path, line: Ask
) -> None:
    before = files(run)
    status, text = line("export", run / "checkpoints" / "last.ckpt", "--out", run / "sae")
    assert (status, files(run)) == (1, before)
    assert f"{run / 'sae'}: holds an autoencoder already: choose another --out" in text


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("no.ckpt", "--out", "sae"), 1, "no.ckpt: no such checkpoint"),
        (("{data}/manifest.json", "--out", "sae"), 1, "is not a readable checkpoint"),
        (("{run}/checkpoints/last.ckpt",), 2, "out"),
        (("--out", "sae"), 2, "checkpoint"),
        (("{run}/checkpoints/last.ckpt", "--out", "/dev/null/sae"), 1, "/dev/null/sae"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: tuple[str, ...], status: int, says: str, run: Path, shards: Path, line: Ask
) -> None:
    found, text = line("export", *(word.format(run=run, data=shards) for word in words))
    assert found == status
    assert says in text


def test_an_autoencoder_is_not_written_among_other_things(
    run: Path, shards: Path, tmp_path: Path, line: Ask
) -> None:
    for folder, content in ((shards, "shards"), (run, "a run")):
        before = files(folder)
        status, text = line("export", run / "checkpoints" / "last.ckpt", "--out", folder)
        assert status == 1
        assert f"{folder}: holds {content}, expected another folder for an autoencoder" in text
        assert files(folder) == before


def test_the_data_module_is_not_needed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ActivationDataModule, "setup")
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert main(["export", str(checkpoint), "--out", str(tmp_path / "sae")]) == 0
