"""An autoencoder of an example is fitted once, also after a stop."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.activations import Manifest, ShardWriter
from lightsae.interventions.examples.sae_fitting import fit_sae

ROWS = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0))


def test_after_a_stop_while_rows_are_written_all_of_them_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = ShardWriter.write, []

    def stopped(self: ShardWriter, rows: Any, **index: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(len(rows))
        write(self, rows, **index)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            fit_sae(ROWS, tmp_path, d_sae=8, k=2, epochs=1)
    first = fit_sae(ROWS, tmp_path, d_sae=8, k=2, epochs=1)
    assert Manifest.load(tmp_path / "shards").rows == len(ROWS)
    again = fit_sae(torch.zeros(1, 4), tmp_path, d_sae=8, k=2, epochs=1)
    assert torch.equal(again.W_dec, first.W_dec) and not again.training
