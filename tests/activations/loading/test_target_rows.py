"""Rows of another layer come with each row, wherever the chunks of their folder begin."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.activations import ActivationBatch, ActivationDataModule, Manifest, ShardWriter
from lightsae.activations.tools.shuffle import shuffle
from lightsae.errors import LightsaeError

ROWS, TOKENS = 120, 3
# Chunks like those of the inputs, smaller, larger, and in other shards.
LAYOUTS: dict[str, dict[str, int]] = {
    "alike": {"rows_per_shard": 40, "chunk_rows": 8},
    "smaller-chunks": {"rows_per_shard": 40, "chunk_rows": 3},
    "larger-chunks": {"rows_per_shard": 40, "chunk_rows": 20},
    "other-shards": {"rows_per_shard": 50, "chunk_rows": 7},
}


def target_of(row: torch.Tensor) -> torch.Tensor:
    return torch.stack([row, 1 - row, 2 * row], dim=1).float()


def write_targets(
    folder: Path,
    numbers: torch.Tensor | None = None,
    layout: str = "alike",
    dtype: str = "float32",
    **manifest: Any,
) -> Path:
    """Targets of rows by their number."""
    numbers = torch.arange(ROWS) if numbers is None else numbers
    described = Manifest(d_in=3, dtype=dtype, layer="blocks.2", **manifest)
    with ShardWriter(folder, described, **LAYOUTS[layout]) as writer:
        writer.write(target_of(numbers), numbers // TOKENS, numbers % TOKENS)
    return folder


@pytest.fixture
def inputs(make_shards: Callable[..., Path]) -> Path:
    """Row i has i in its first column."""
    return make_shards(rows=ROWS, tokens=TOKENS)


def make_data(inputs: Path, targets: Path | None, **options: Any) -> ActivationDataModule:
    defaults = {"batch_size": 16, "val_fraction": 0.2, "test_fraction": 0.2, "buffer_rows": 48}
    data = ActivationDataModule(str(inputs), targets=targets and str(targets), **defaults | options)
    data.setup()
    return data


def assert_its_targets(batch: ActivationBatch) -> None:
    assert batch.targets is not None and batch.targets.dtype == torch.float32
    assert torch.equal(batch.targets, target_of(batch.activations[:, 0]))


@pytest.mark.parametrize("readers", [0, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_row_of_a_split_has_its_target(
    layout: str, readers: int, inputs: Path, tmp_path: Path
) -> None:
    data = make_data(inputs, write_targets(tmp_path / "out", layout=layout), readers=readers)
    loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    seen = []
    for loader in loaders:
        for batch in loader:
            assert_its_targets(batch)
            seen += batch.activations[:, 0].tolist()
    assert sorted(seen) == list(range(ROWS))
    assert (data.d_in, data.d_out) == (8, 3)
    data.teardown()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches_are_those_that_come_without_targets(
    layout: str, inputs: Path, tmp_path: Path
) -> None:
    targets = write_targets(tmp_path / "out", layout=layout)
    for with_targets, alone in zip(
        make_data(inputs, targets).train_dataloader(), make_data(inputs, None).train_dataloader(),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(with_targets.activations, alone.activations)
        assert alone.targets is None


def test_processes_of_large_sets_read_them(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightsae.activations.shards.reading.shard_set._WORTH_PROCESSES", 1)
    data = make_data(inputs, write_targets(tmp_path / "out", layout="other-shards"), readers=1)
    rows = 0
    for batch in data.train_dataloader():
        assert_its_targets(batch)
        rows += len(batch.activations)
    assert rows == data.rows("train")
    data.teardown()


def test_a_loader_goes_on_where_it_was_left(inputs: Path, tmp_path: Path) -> None:
    data = make_data(inputs, write_targets(tmp_path / "out", layout="larger-chunks"))
    whole = [batch.targets.clone() for batch in data.train_dataloader()]
    loader = data.train_dataloader()
    batches = iter(loader)
    next(batches), next(batches)
    state = loader.state_dict()
    batches.close()  # type: ignore[attr-defined]
    resumed = data.train_dataloader()
    resumed.load_state_dict(state)
    left = list(resumed)
    for batch, targets in zip(left, whole[2:], strict=True):
        assert_its_targets(batch)
        assert torch.equal(batch.targets, targets)


def test_ranks_share_the_rows(inputs: Path, tmp_path: Path) -> None:
    data = make_data(inputs, write_targets(tmp_path / "out", layout="smaller-chunks"))
    seen = []
    for rank in range(2):
        for batch in data.split_dataloader("test", rank=rank, world_size=2, targets=True):
            assert_its_targets(batch)
            seen += batch.sample_index.tolist()
    assert len(seen) == data.rows("test")


def test_only_codes_are_predicted_so_targets_are_not_read(inputs: Path, tmp_path: Path) -> None:
    data = make_data(inputs, write_targets(tmp_path / "out"))
    for loader in (data.predict_dataloader(), data.split_dataloader("test")):
        assert next(iter(loader)).targets is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_training_sample_and_its_targets_are_of_the_same_rows(
    layout: str, inputs: Path, tmp_path: Path
) -> None:
    data = make_data(inputs, write_targets(tmp_path / "out", layout=layout))
    sample, targets = data.training_sample(20), data.training_targets(20)
    assert len(sample) == 20
    assert torch.equal(targets, target_of(sample[:, 0]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_targets_may_be_stored_in_another_dtype(dtype: str, inputs: Path, tmp_path: Path) -> None:
    targets = write_targets(tmp_path / "out", dtype=dtype)
    for batch in make_data(inputs, targets).val_dataloader():
        stored = target_of(batch.activations[:, 0]).to(getattr(torch, dtype))
        assert torch.equal(batch.targets, stored.float())
    for batch in make_data(inputs, targets, dtype="stored").val_dataloader():
        assert batch.targets.dtype == getattr(torch, dtype)


def test_a_copy_of_the_data_opens_its_own_files(inputs: Path, tmp_path: Path) -> None:
    data = copy.deepcopy(make_data(inputs, write_targets(tmp_path / "out")))
    for batch in data.val_dataloader():
        assert_its_targets(batch)


def test_a_row_that_is_missing_is_named(inputs: Path, tmp_path: Path) -> None:
    numbers = torch.arange(ROWS)[torch.arange(ROWS) != 31]
    targets = write_targets(tmp_path / "out", numbers)
    with pytest.raises(
        LightsaeError,
        match=rf"{targets}: has no row of sample 10, token 1, which {inputs} has",
    ):
        make_data(inputs, targets)


def test_a_row_too_many_is_named(inputs: Path, tmp_path: Path) -> None:
    targets = write_targets(tmp_path / "out", torch.arange(ROWS + 1))
    with pytest.raises(
        LightsaeError, match=rf"{inputs}: has no row of sample 40, token 0, which {targets} has"
    ):
        make_data(inputs, targets)


def test_a_row_that_comes_twice_is_refused(inputs: Path, tmp_path: Path) -> None:
    numbers = torch.cat([torch.arange(ROWS), torch.tensor([5])])
    targets = write_targets(tmp_path / "out", numbers)
    with pytest.raises(LightsaeError, match=rf"{targets}: has 121 rows, {inputs} has 120 of"):
        make_data(inputs, targets)


def test_converted_folders_tell_no_images(tmp_path: Path) -> None:
    folders = [
        write_targets(tmp_path / name, settings={"made_by": "convert", "data": name})
        for name in ("a", "b")
    ]
    assert make_data(*folders).d_out == 3


def test_another_order_is_refused_with_what_to_do(inputs: Path, tmp_path: Path) -> None:
    targets = write_targets(tmp_path / "out", torch.arange(ROWS).flip(0))
    with pytest.raises(
        LightsaeError, match=r"in another order: extract both layers in one pass, and shuffle"
    ):
        make_data(inputs, targets)


def test_both_shuffled_alike_go_together(inputs: Path, tmp_path: Path) -> None:
    targets = write_targets(tmp_path / "out")
    for folder in (inputs, targets):
        shuffle(str(folder), f"{folder}-shuffled", seed=3, show_progress=False)
    shuffled = [Path(f"{folder}-shuffled") for folder in (inputs, targets)]
    for batch in make_data(*shuffled).train_dataloader():
        assert_its_targets(batch)
    with pytest.raises(LightsaeError, match="in another order"):
        make_data(shuffled[0], targets)


@pytest.mark.parametrize(
    ("name", "given", "other"),
    [("model", "vit", "cnn"), ("weights_hash", "a", "b"), ("tokens", "patch", "class"),
     ("images", "1", "2")],
)  # fmt: skip
def test_another_extraction_is_refused(name: str, given: str, other: str, tmp_path: Path) -> None:
    def described(value: str) -> dict[str, Any]:
        return {"settings": {"data": value}} if name == "images" else {name: value}

    folders = [write_targets(tmp_path / value, **described(value)) for value in (given, other)]
    with pytest.raises(
        LightsaeError, match=rf"{folders[1]}: has {name} '{other}', {folders[0]} has '{given}'"
    ):
        make_data(*folders)
