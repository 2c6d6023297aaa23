"""Embeddings of another model come with each row, by sample, whatever the order they lie in."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightsae.activations import ActivationDataModule, Manifest, ShardWriter
from lightsae.activations.loading.paired_rows.sample_embeddings import SampleEmbeddings
from lightsae.errors import LightsaeError

SAMPLES = 25


def embedding_of(sample: torch.Tensor) -> torch.Tensor:
    return torch.stack([sample, -2 * sample, sample + 1], dim=1).float()


def write(folder: Path, samples: torch.Tensor, dtype: str = "float32") -> Path:
    with ShardWriter(folder, Manifest(d_in=3, dtype=dtype), rows_per_shard=9) as writer:
        writer.write(embedding_of(samples), samples)
    return folder


@pytest.fixture
def shuffled(tmp_path: Path) -> Path:
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0))
    return write(tmp_path / "other", order)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_row_of_a_split_has_that_of_its_sample(
    split: str, make_shards: Callable[..., Path], shuffled: Path
) -> None:
    folder = make_shards(rows=100, tokens=4)
    data = ActivationDataModule(
        str(folder), batch_size=16, val_fraction=0.2, test_fraction=0.2, buffer_rows=40,
        embeddings=str(shuffled),
    )  # fmt: skip
    data.setup()
    batches = list(getattr(data, f"{split}_dataloader")())
    assert sum(len(batch.activations) for batch in batches) in (60, 20)
    for batch in batches:
        assert torch.equal(batch.embeddings, embedding_of(batch.sample_index))
    assert next(iter(data.predict_dataloader())).embeddings is None
    data.teardown()


def test_without_a_second_folder_batches_have_none(make_shards: Callable[..., Path]) -> None:
    data = ActivationDataModule(str(make_shards()), val_fraction=0.2, test_fraction=0.2)
    data.setup()
    assert next(iter(data.train_dataloader())).embeddings is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_gaps_and_stored_dtypes(dtype: str, tmp_path: Path) -> None:
    samples = torch.tensor([90, 3, 41, 7])
    found = SampleEmbeddings(str(write(tmp_path / "sparse", samples, dtype)))
    wanted = torch.tensor([41, 3, 3, 90])
    stored = embedding_of(wanted).to(getattr(torch, dtype)).float()
    assert torch.equal(found.of(wanted), stored)
    assert found.of(wanted[:0]).shape == (0, 3)


@pytest.mark.parametrize("sample", [-1, 4, 91])
def test_a_sample_that_has_none_is_named(sample: int, tmp_path: Path) -> None:
    folder = write(tmp_path / "sparse", torch.tensor([90, 3]))
    with pytest.raises(LightsaeError, match=f"{folder}: has no row of sample {sample}, expected"):
        SampleEmbeddings(str(folder)).of(torch.tensor([3, sample]))


def test_several_rows_of_a_sample_are_refused(make_shards: Callable[..., Path]) -> None:
    folder = make_shards(rows=12, tokens=4)
    with pytest.raises(LightsaeError, match=f"{folder}: sample 0 has several rows, expected one"):
        SampleEmbeddings(str(folder))
