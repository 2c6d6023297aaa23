from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightsae.activations import Manifest, ShardSet, ShardWriter

torch.set_num_threads(1)


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder whose row i holds i in column 0 (float32) and whose sample is i // tokens."""

    def make(
        rows: int = 100,
        d_in: int = 8,
        dtype: str = "float32",
        tokens: int = 1,
        labels: bool = True,
        name: str = "shards",
        **options: Any,
    ) -> Path:
        folder = tmp_path / name
        values = torch.from_numpy(
            np.random.default_rng(0).standard_normal((rows, d_in), dtype=np.float32)
        )
        values[:, 0] = torch.arange(rows) if dtype == "float32" else 0
        sample = torch.arange(rows) // tokens
        manifest = Manifest(d_in=d_in, dtype=dtype, layer="blocks.1", has_labels=labels)
        options = {"rows_per_shard": 40, "chunk_rows": 8, **options}
        with ShardWriter(folder, manifest, **options) as writer:
            for part in torch.arange(rows).split(10):
                label = sample[part] % 3 if labels else None
                writer.write(values[part], sample[part], part % tokens, label)
        return folder

    return make


@pytest.fixture
def all_rows() -> Callable[[Path], np.ndarray]:
    """Read every row of a folder as float32, in stored order."""

    def read(folder: Path) -> np.ndarray:
        shards = ShardSet(folder)
        rows = np.concatenate(shards.read_activations(range(len(shards.chunks))))
        shards.close()
        return rows

    return read
