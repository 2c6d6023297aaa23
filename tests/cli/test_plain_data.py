"""The command line over a data module that knows nothing of this package."""

import sys
from pathlib import Path

import pytest
import torch

from lightsae.cli import main
from lightsae.runs.code_writer import read_codes
from lightsae.sae import SparseAutoencoder

from ..training.helpers import D_IN, D_SAE, write_config
from .helpers import Ask

MODULE = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Rows(LightningDataModule):
    def __init__(self, tensors: int = 1):
        super().__init__()
        x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
        self.rows = TensorDataset(*[x] * tensors)

    def train_dataloader(self):
        return DataLoader(self.rows, batch_size=16, shuffle=True)

    def predict_dataloader(self):
        return DataLoader(self.rows, batch_size=16)

    val_dataloader = test_dataloader = predict_dataloader
"""


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_data", raising=False)
    return write_config(tmp_path / "config.yaml", tmp_path, data={"class_path": "own_data.Rows"})


@pytest.mark.filterwarnings("ignore:scale and b_dec come from the first 64 rows")
def test_every_command_runs(plain: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for word in ("fit", "validate", "test", "predict"):
        assert main([word, "--config", str(plain), "--run_dir", str(run)]) == 0
    sae = SparseAutoencoder.load(run / "sae")
    assert (sae.d_in, sae.d_sae) == (D_IN, D_SAE)
    assert sae.scale != 1
    values, _, indptr, _ = read_codes(run / "codes" / "codes-00000.h5")
    assert len(indptr) == 65
    assert torch.count_nonzero(values) == len(values) > 64


def test_what_is_no_batch_of_activations_is_one_line(
    plain: Path, tmp_path: Path, line: Ask
) -> None:
    words = ("fit", "--config", plain, "--run_dir", tmp_path / "run", "--data.tensors=2")
    status, text = line(*words)
    assert status == 1
    assert "a batch is a list of 2 items, expected a float tensor [rows, d_in]" in text
