"""`lightsae fit` with a callback of Lightning that averages weights, named in the YAML."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.cli import main
from lightsae.sae import SparseAutoencoder
from lightsae.training import MetricsFile, read_checkpoint

from ..training.helpers import SIZES, make_data, make_module, make_trainer, write_config
from .helpers import files

CALLBACKS: dict[str, dict[str, Any]] = {
    "EMAWeightAveraging": {"decay": 0.75},
    "StochasticWeightAveraging": {"swa_lrs": 0.1, "swa_epoch_start": 1, "annealing_epochs": 1},
}


@pytest.fixture(params=CALLBACKS)
def averaged(request: pytest.FixtureRequest, shards: Path, tmp_path: Path) -> Path:
    """A configuration with one of them."""
    callback = {"class_path": request.param, "init_args": CALLBACKS[request.param]}
    return write_config(tmp_path / "config.yaml", shards, trainer__callbacks=[callback])


def test_the_saved_autoencoder_is_the_averaged_one(
    averaged: Path, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["--config", str(averaged), "--run_dir", str(run)]
    assert main(["fit", *words]) == 0
    assert capfd.readouterr().err.splitlines() == [
        f"{run}: no checkpoint yet, starting from the beginning {SIZES}",
        f"{run}: finished after step 20",
    ]
    saved = SparseAutoencoder.load(run / "sae")
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    for name, tensor in saved.state_dict().items():
        assert torch.equal(checkpoint["state_dict"][f"sae.{name}"], tensor), name
    assert not torch.equal(checkpoint["current_model_state"]["sae.W_enc"], saved.W_enc)
    norms = saved.W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-6, atol=0)

    before = files(run)
    assert main(["fit", *words]) == 0
    assert files(run) == before

    assert main(["test", *words]) == 0
    [tested] = MetricsFile(run / "evaluations.jsonl").rows()
    module = make_module(d_in=saved.d_in)
    module.sae = saved
    [expected] = make_trainer(tmp_path / "again").test(module, make_data(shards), verbose=False)
    assert tested["test/r2"] == expected["test/r2"]


def test_a_run_in_two_parts_is_one(averaged: Path, tmp_path: Path) -> None:
    words = ["fit", "--config", str(averaged)]
    assert main([*words, "--run_dir", str(tmp_path / "whole")]) == 0
    parts = [*words, "--run_dir", str(tmp_path / "parts")]
    assert main([*parts, "--trainer.max_steps=13"]) == 0
    assert main(parts) == 0
    assert files(tmp_path / "parts" / "sae") == files(tmp_path / "whole" / "sae")


@pytest.mark.parametrize("start", [1, 2, 0.8])
def test_averaging_may_begin_in_any_epoch(start: float, shards: Path, tmp_path: Path) -> None:
    callback = {
        "class_path": "StochasticWeightAveraging",
        "init_args": {"swa_lrs": 0.1, "swa_epoch_start": start, "annealing_epochs": 1},
    }
    config = write_config(
        tmp_path / "config.yaml", shards, trainer__callbacks=[callback], trainer__max_epochs=4
    )
    assert main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]) == 0
    norms = SparseAutoencoder.load(tmp_path / "run" / "sae").W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-6, atol=0)
