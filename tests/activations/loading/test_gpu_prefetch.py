"""Batches travel to a device while the one before is used, and keep their memory as long."""

import weakref
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from lightsae.activations import ActivationDataModule, ActivationLoader, ShardSet
from lightsae.activations.loading.activation_batch import ActivationBatch
from lightsae.activations.loading.gpu_prefetch import Copy, ahead
from lightsae.activations.loading.splits import count_rows, distinct_samples, split_rule
from lightsae.activations.shards.checked_read import aligned
from lightsae.activations.shards.dtypes import Array

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class LateCopies:
    """A device that copies as late as it may: when somebody waits for it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.registered = 0

    def allocate(self, size: int) -> Array:
        return aligned(size)

    def register(self, memory: Array) -> Array:
        self.registered += memory.nbytes
        return memory

    def begin(self, source: ActivationBatch) -> Copy:
        self.told.append(f"begin {int(source.sample_index[0])}")
        there = source._replace(activations=torch.full_like(source.activations, -1.0))
        return Copy(source, there, Arrival(self.told, source, there.activations))

    def hand_over(self, copy: Copy) -> ActivationBatch:
        self.told.append(f"hand over {int(copy.batch.sample_index[0])}")
        return copy.batch


class Arrival:
    """Knows the memory that is copied from, as a device does: it keeps nobody from using it."""

    def __init__(self, told: list[str], source: ActivationBatch, there: Tensor) -> None:
        self._told, self._name = told, int(source.sample_index[0])
        self._memory = weakref.ref(source.activations)
        self._there = there

    def synchronize(self) -> None:
        memory = self._memory()
        assert memory is not None, "let go before it was copied"
        self._told.append(f"arrived {self._name}")
        self._there.copy_(memory)


def numbered(count: int) -> Generator[ActivationBatch, None, None]:
    for number in range(count):
        index = torch.full((2,), number)
        yield ActivationBatch(torch.full((2, 3), float(number)), index, index, None)


def test_a_batch_is_copied_while_the_one_before_is_used() -> None:
    copies = LateCopies()
    for batch in ahead(numbered(3), copies):
        copies.told.append(f"use {int(batch.sample_index[0])}")
    assert copies.told == [
        "begin 0",
        "begin 1",
        "hand over 0",
        "use 0",
        "arrived 0",
        "begin 2",
        "hand over 1",
        "use 1",
        "arrived 1",
        "hand over 2",
        "use 2",
        "arrived 2",
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_batch_arrives(count: int) -> None:
    found = list(ahead(numbered(count), LateCopies()))
    assert [batch.activations.unique().tolist() for batch in found] == [[n] for n in range(count)]


@pytest.mark.parametrize("used", [1, 2, 3])
def test_what_is_under_way_arrives_when_nobody_wants_it_any_more(used: int) -> None:
    copies = LateCopies()
    batches = ahead(numbered(5), copies)
    for _ in range(used):
        next(batches)
    batches.close()
    assert {line[6:] for line in copies.told if line.startswith("begin")} == {
        line[8:] for line in copies.told if line.startswith("arrived")
    }


def test_an_error_comes_after_the_batches_before_it() -> None:
    def failing() -> Generator[ActivationBatch, None, None]:
        yield from numbered(2)
        raise OSError("a shard is gone")

    copies = LateCopies()
    batches = ahead(failing(), copies)
    assert [int(next(batches).sample_index[0]) for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="a shard is gone"):
        next(batches)
    assert copies.told.count("arrived 1") == 1


def _loader(shards: ShardSet, copies: LateCopies | None, shuffle: bool) -> ActivationLoader:
    rule = split_rule(distinct_samples(shards), val_fraction=0.2, test_fraction=0, seed=0)
    counts = count_rows(shards, rule, ("train",))["train"]
    return ActivationLoader(
        shards, rule, "train", counts, batch_size=7, buffer_rows=32, shuffle=shuffle, copies=copies
    )


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loader_delivers_the_same_batches(
    make_shards: Callable[..., Path], shuffle: bool
) -> None:
    shards = ShardSet(make_shards())
    here, there = (_loader(shards, copies, shuffle) for copies in (None, LateCopies()))
    for _ in range(2):
        expected = [batch.activations.clone() for batch in here]
        found = list(there)
        assert len(found) == len(expected) == 12
        for batch, rows in zip(found, expected, strict=True):
            assert torch.equal(batch.activations, rows)
    shards.close()


def test_the_position_counts_batches_delivered_and_not_those_under_way(
    make_shards: Callable[..., Path],
) -> None:
    shards = ShardSet(make_shards())
    loader, again = _loader(shards, LateCopies(), True), _loader(shards, None, True)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    state = loader.state_dict()
    assert (state["epoch"], state["batches"]) == (0, 3)
    left = [batch.sample_index.tolist() for batch in iterator]
    again.load_state_dict({"epoch": 0, "batches": 3})
    assert [batch.sample_index.tolist() for batch in again] == left
    shards.close()


class _Seen(LightningModule):
    """Keeps where batches are and a sum of each."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.devices: set[str] = set()
        self.sums: list[Tensor] = []

    def training_step(self, batch: ActivationBatch, batch_idx: int) -> Tensor:
        self.devices.add(batch.activations.device.type)
        self.sums.append(batch.activations.double().sum())
        return self.weight * batch.activations.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def _sums(path: Path, accelerator: str, dtype: str) -> tuple[set[str], list[float]]:
    data = ActivationDataModule(
        str(path),
        batch_size=7,
        buffer_rows=32,
        val_fraction=0,
        dtype=dtype,  # type: ignore[arg-type]
    )
    module = _Seen()
    Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, data)
    return module.devices, [float(value) for value in module.sums]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", ["float32", "stored"])
def test_a_gpu_sees_the_batches_that_a_cpu_sees(
    make_shards: Callable[..., Path], dtype: str
) -> None:
    path = make_shards(rows=400, d_in=64, dtype="float16")
    (here, expected), (there, found) = _sums(path, "cpu", dtype), _sums(path, "gpu", dtype)
    assert (here, there) == ({"cpu"}, {"cuda"})
    assert found == pytest.approx(expected, rel=1e-12)
