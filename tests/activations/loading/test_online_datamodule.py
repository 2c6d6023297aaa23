import json
import multiprocessing
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from lightsae.activations import (
    ActivationBatch,
    ActivationDataModule,
    ActivationLoader,
    DataOptions,
    ModelOptions,
    OnlineActivationDataModule,
    extract,
)
from lightsae.activations.loading.online.online_rows import RunningModel
from lightsae.errors import LightsaeError

from .test_datamodule import Recorder, _trainer

STAND_INS = "tests.activations.stand_ins"
IMAGES = 47
MakeData = Callable[..., OnlineActivationDataModule]


def model_options(**arguments: Any) -> ModelOptions:
    return ModelOptions(module=f"{STAND_INS}.TinyNet", arguments=arguments)


def data_options(**arguments: Any) -> DataOptions:
    return DataOptions(dataset=f"{STAND_INS}.Noise", arguments={"count": IMAGES, **arguments})


def make_data(
    model: ModelOptions | None = None, data: DataOptions | None = None, **options: Any
) -> OnlineActivationDataModule:
    """Five tokens of 47 images, 37 of them for training, in batches of 12 rows."""
    options = {"layer": "tokens", "tokens": "all", "batch_size": 12, **options}
    options = {"buffer_rows": 80, "forward_batch_size": 4, "device": "cpu", **options}
    options = {"val_fraction": 0.1, "test_fraction": 0.1, **options}
    return OnlineActivationDataModule(model or model_options(), data or data_options(), **options)


def test_a_layer_may_be_called_by_a_number() -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(OnlineActivationDataModule, "data")
    model = {"module": f"{STAND_INS}.Numbered"}
    arguments = {"model": model, "data": {"dataset": f"{STAND_INS}.Noise"}, "tokens": "pooled"}
    parsed = parser.parse_object({"data": {**arguments, "layer": 0}})
    data = parser.instantiate(parsed).data
    assert (data.layer, data.d_in) == ("0", 4)


@pytest.mark.parametrize("how", ["TBD", "BDT"])
def test_the_layout_of_a_layer_is_found_or_declared(how: str) -> None:
    def opened(how: str, **options: Any) -> OnlineActivationDataModule:
        model = ModelOptions(module=f"{STAND_INS}.Arranged", arguments={"how": how})
        return make_data(model, layer="layer", **options)

    found = opened(how, layout=how if how == "BDT" else None)
    assert found.manifest.settings.get("layout") == (how if how == "BDT" else None)
    batches = zip(found.train_dataloader(), opened("BTD").train_dataloader(), strict=True)
    for batch, expected in batches:
        assert torch.equal(batch.sample_index, expected.sample_index)
        torch.testing.assert_close(batch.activations, expected.activations)


def test_a_layer_that_runs_twice_is_told() -> None:
    model = ModelOptions(module=f"{STAND_INS}.Arranged", arguments={"how": "twice"})
    with pytest.warns(UserWarning, match="layer 'layer' runs 2 times in a forward pass"):
        make_data(model, layer="layer").setup()


def loader_of(
    data: OnlineActivationDataModule, rank: int = 0, world_size: int = 1
) -> ActivationLoader:
    source, rule, counts = data._opened("train")
    return ActivationLoader(
        source,
        rule,
        "train",
        counts,
        batch_size=data.batch_size,
        buffer_rows=data.buffer_rows,
        rank=rank,
        world_size=world_size,
        readers=1,
    )


def rows_of(batches: Any) -> list[tuple[int, int]]:
    return [
        (int(sample), int(token))
        for batch in batches
        for sample, token in zip(batch.sample_index, batch.token_index, strict=True)
    ]


def same(found: ActivationBatch, expected: ActivationBatch) -> bool:
    return all(
        one is other if one is None or other is None else torch.equal(one, other)
        for one, other in zip(found, expected, strict=True)
    )


@pytest.fixture
def shards(tmp_path: Path) -> ActivationDataModule:
    """What `extract` and `ActivationDataModule` make of the same model and images."""
    folder = str(tmp_path / "shards")
    extract(model_options(), data_options(), "tokens", folder, tokens="all", dtype="float32")
    return ActivationDataModule(folder, batch_size=12, val_fraction=0.1, test_fraction=0.1)


@pytest.mark.parametrize("word", ["train", "val", "test", "predict"])
def test_its_rows_are_those_that_extraction_writes(shards: ActivationDataModule, word: str) -> None:
    def found(data: Any) -> dict[tuple[int, int], tuple[torch.Tensor, int]]:
        batches = list(getattr(data, f"{word}_dataloader")())
        vectors = chain(*(batch.activations for batch in batches))
        labels = chain(*(batch.label.tolist() for batch in batches))
        pairs = zip(vectors, labels, strict=True)
        return dict(zip(rows_of(batches), pairs, strict=True))

    online, stored = found(make_data()), found(shards)
    assert online.keys() == stored.keys()
    for row, (vector, label) in online.items():
        assert label == stored[row][1] == row[0] % 4
        # Images are in forward passes of other sizes, in which a convolution may round otherwise.
        torch.testing.assert_close(vector, stored[row][0], rtol=1e-5, atol=1e-6)
    shards.teardown()


def test_it_knows_of_itself_what_shards_know(shards: ActivationDataModule) -> None:
    data = make_data()
    for name in ("d_in", "dtype", "model", "weights_hash", "layer", "tokens", "has_labels",
                 "classes", "rows", "complete"):  # fmt: skip
        assert getattr(data.manifest, name) == getattr(shards.manifest, name)
    for split in ("train", "validation", "test", "all"):
        assert data.rows(split) == shards.rows(split)  # type: ignore[arg-type]
    shards.teardown()


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("forward", [1, 4, 5, 100])
def test_every_training_row_comes_once_an_epoch(world_size: int, forward: int) -> None:
    data = make_data(forward_batch_size=forward)
    loaders = [loader_of(data, rank, world_size) for rank in range(world_size)]
    total = data.rows("train")
    for _ in range(2):
        rows = [rows_of(loader) for loader in loaders]
        assert {len(part) for part in rows} <= {total // world_size, -(-total // world_size)}
        assert len(set(chain(*rows))) == sum(map(len, rows)) == total


def test_epochs_differ_and_a_seed_repeats_them() -> None:
    loader, again = (make_data().train_dataloader() for _ in range(2))
    first, second = rows_of(loader), rows_of(loader)
    assert sorted(first) == sorted(second)
    assert first != second
    assert (rows_of(again), rows_of(again)) == (first, second)
    assert rows_of(make_data(seed=1).train_dataloader()) != first


def test_a_row_is_the_same_bit_for_bit_in_every_epoch() -> None:
    loader = make_data().train_dataloader()
    epochs = []
    for _ in range(2):
        batches = list(loader)
        vectors = chain(*(batch.activations.tolist() for batch in batches))
        epochs.append(dict(zip(rows_of(batches), vectors, strict=True)))
    assert epochs[0] == epochs[1]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_anywhere_it_delivers_exactly_what_is_left(world_size: int, workers: int) -> None:
    for rank in range(world_size):
        loader = loader_of(make_data(workers=workers), rank, world_size)
        list(loader)
        states, whole = [], []
        for batch in loader:
            states.append(loader.state_dict())
            whole.append(batch)
        assert len(whole) == len(loader) > 4
        for done, state in list(enumerate(states, 1))[:: 1 if workers == 0 else 4]:
            resumed = loader_of(make_data(), rank, world_size)
            resumed.load_state_dict(json.loads(json.dumps(state)))
            left = list(resumed) if done < len(whole) else []
            assert len(left) == len(whole) - done
            assert all(same(*pair) for pair in zip(left, whole[done:], strict=True))


@pytest.mark.parametrize("step", [1, 7, 15, 16, 17, 30])
def test_a_resumed_run_sees_the_rows_of_an_uninterrupted_one(tmp_path: Path, step: int) -> None:
    def fit(ckpt: Path | None = None, **options: Any) -> list[list[int]]:
        model = Recorder()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _trainer(tmp_path, **options).fit(model, datamodule=make_data(), ckpt_path=ckpt)
        return model.seen

    whole = fit()
    assert len(whole) == 48
    save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    assert fit(callbacks=[save]) == whole
    assert fit(tmp_path / f"step={step}.ckpt") == whole[step:]


def test_workers_that_read_images_change_nothing() -> None:
    batches = [list(make_data(workers=workers).train_dataloader()) for workers in (0, 1, 2)]
    for other in batches[1:]:
        assert all(same(*pair) for pair in zip(batches[0], other, strict=True))


def test_the_size_of_a_forward_pass_is_part_of_the_order_alone() -> None:
    orders = [rows_of(make_data(forward_batch_size=size).train_dataloader()) for size in (3, 4)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    for word in ("val", "test", "predict"):
        found = [
            rows_of(getattr(make_data(forward_batch_size=size), f"{word}_dataloader")())
            for size in (3, 4)
        ]
        assert found[0] == found[1] == sorted(found[0])


def test_copies_of_a_sample_share_its_split_and_count_its_tokens_on() -> None:
    copies = data_options(count=40, copies=2)
    parts = [
        rows_of(getattr(make_data(data=copies), f"{word}_dataloader")())
        for word in ("train", "val", "test")
    ]
    assert sorted(chain(*parts)) == [(sample, token) for sample in range(20) for token in range(10)]
    samples = [{sample for sample, _ in part} for part in parts]
    assert not samples[0] & samples[1] | samples[1] & samples[2] | samples[0] & samples[2]


def test_a_training_sample_is_of_the_training_split() -> None:
    data = make_data()
    sample = data.training_sample()
    trained = torch.cat([batch.activations for batch in data.train_dataloader()])
    assert (sample.shape, sample.dtype) == ((data.rows("train"), 8), torch.float32)
    assert sorted(sample.tolist()) == sorted(trained.tolist())
    assert torch.equal(make_data().training_sample(13), data.training_sample(13))
    assert len(data.training_sample(13)) == 13


@pytest.mark.parametrize(
    "change",
    [
        {"model": model_options(scale=2.0)},
        {"data": data_options(count=48)},
        {"layer": "patches", "tokens": "patch"},
        {"tokens": "pooled"},
        {"forward_batch_size": 5},
        {"buffer_dtype": "float16"},
        {"compute": "bfloat16"},
        {"seed": 1},
        {"split_seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_rows_have_another_digest(change: dict[str, Any]) -> None:
    assert make_data().digest == make_data(workers=1, buffer_rows=40, batch_size=3).digest
    assert make_data(**change).digest != make_data().digest


def test_the_weights_are_part_of_the_digest(tmp_path: Path) -> None:
    from ..stand_ins import TinyNet

    digests = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        file = tmp_path / f"{seed}.pt"
        torch.save(TinyNet().state_dict(), file)
        digests.add(
            make_data(ModelOptions(module=f"{STAND_INS}.TinyNet", weights=str(file))).digest
        )
    assert len(digests) == 2


def test_the_buffer_may_be_narrow_and_batches_are_float32() -> None:
    wide, narrow = (
        list(make_data(buffer_dtype=dtype).train_dataloader()) for dtype in ("float32", "bfloat16")
    )
    for found, expected in zip(narrow, wide, strict=True):
        assert found.activations.dtype == torch.float32
        assert torch.equal(found.activations, expected.activations.bfloat16().float())


class Counter:
    """Counts the forward passes of every model."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes = 0
        original = RunningModel.__call__

        def counted(model: RunningModel, images: torch.Tensor) -> Any:
            self.passes += 1
            return original(model, images)

        monkeypatch.setattr(RunningModel, "__call__", counted)

    def settled(self) -> int:
        """How many there were when no more came for a while."""
        before = -1
        while before != self.passes:
            before = self.passes
            time.sleep(0.2)
        return before


def test_the_model_runs_one_half_of_the_buffer_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data()
    data.setup()
    counter = Counter(monkeypatch)
    with closing(iter(data.train_dataloader())) as batches:  # type: ignore[type-var]
        next(batches)
        # 80 rows are two halves of two passes each: four images of five tokens.
        assert counter.settled() == 4
        list(islice(batches, 3))
        assert counter.settled() == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterator_that_is_dropped_stops_the_model_and_the_workers(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(workers=workers, buffer_rows=2000, data=data_options(count=4000))
    data.setup()
    threads, counter = threading.active_count(), Counter(monkeypatch)
    batches = iter(data.train_dataloader())
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert counter.settled() < 2 * 50
    assert threading.active_count() == threads
    assert not multiprocessing.active_children()


def test_training_and_validation_run_the_model_at_once() -> None:
    data = make_data()
    alone = rows_of(data.val_dataloader())
    train, seen = data.train_dataloader(), []
    for number, batch in enumerate(train):
        seen.append(batch)
        if number % 5 == 0:
            assert rows_of(data.val_dataloader()) == alone
    assert all(same(*pair) for pair in zip(seen, make_data().train_dataloader(), strict=True))


def test_the_global_generator_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    data = make_data()
    list(data.train_dataloader())
    data.training_sample()
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_left_out_of_a_folder_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("1.png", "2.png", "3.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    own: dict[str, Any] = {"size": 16, "mean": [0.0] * 3, "std": [1.0] * 3}
    data = OnlineActivationDataModule(
        model_options(), DataOptions(folder=str(tmp_path), **own), layer="tokens"
    )
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        assert data.d_in == 8
    assert f"{tmp_path}: 1 file is no image that Pillow reads" in caplog.text


def test_d_in_needs_no_setup_and_teardown_lets_go() -> None:
    data = make_data()
    assert data.d_in == 8
    data.setup()
    data.teardown()
    data.teardown()
    assert data.rows("train") == 37 * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forward_batch_size": 0}, "forward_batch_size is 0, expected at least 1"),
        ({"workers": -1}, "workers is -1, expected at least 0"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
        ({"buffer_dtype": "int8"}, "dtype is 'int8', expected one of float16, bfloat16, float32"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LightsaeError, match=f"^{message}$"):
        make_data(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "token"}, r"layer: TinyNet has no module 'token'; closest: 'tokens'.*"),
        ({"tokens": "first"}, r"tokens is 'first', expected one of class, patch, pooled, all"),
        ({"data": data_options(count=0)}, r"data: .*Noise \{'count': 0\} is empty"),
        ({"device": "nowhere"}, r"device 'nowhere' cannot be used: .*"),
        ({"val_fraction": 1.0}, r"val_fraction is 1.0, expected at least 0 and less than 1"),
        ({"data": data_options(bad=(0,))}, r"item 0 of .*Noise .* is unreadable: OSError: broken "
         r"file \(online each must be; lightsae extract --on_error skip goes on without it\)"),
    ],
    ids=["layer", "tokens", "images", "device", "fraction", "unreadable"],
)  # fmt: skip
def test_what_is_wrong_is_told_before_training(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LightsaeError, match=f"^{message}$"):
        make_data(**options).setup()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named_when_its_turn_comes(workers: int) -> None:
    data = make_data(data=data_options(bad=tuple(range(20, 40))), workers=workers)
    with pytest.raises(LightsaeError, match=r"^item \d+ of .*Noise .* is unreadable: OSError: br"):
        list(data.train_dataloader())


def test_a_value_that_the_buffer_cannot_hold_is_an_error() -> None:
    bright = data_options(large=tuple(range(20, 40)))
    data = make_data(data=bright, buffer_dtype="float16")
    message = (
        r"^item (2|3)\d of .*Noise .*: layer 'tokens' gives -?[\d.e+]+, which float16 cannot hold: "
        r"use buffer_dtype float32 or bfloat16, or leave the image out \(lightsae extract "
        r"--on_error skip does\)$"
    )
    with pytest.raises(LightsaeError, match=message):
        next(iter(data.train_dataloader()))


class Growing(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Images of which each is larger than the one before."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.zeros(3, 16 + 8 * i, 16)


def test_images_of_other_sizes_are_an_error() -> None:
    growing = DataOptions(dataset="tests.activations.loading.test_online_datamodule.Growing")
    data = make_data(data=growing, forward_batch_size=1)
    message = r"Growing .*: images give \[\d+, 8\] tokens and numbers, the first one \[5, 8\]; exp"
    with pytest.raises(LightsaeError, match=message):
        list(data.train_dataloader())


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_precision_that_reaches_the_model_is_refused(tmp_path: Path, precision: str) -> None:
    message = f"^trainer.precision is {precision}: .*; expected 32-true, bf16-mixed or 16-mixed$"
    with warnings.catch_warnings(), pytest.raises(LightsaeError, match=message):
        warnings.simplefilter("ignore")
        _trainer(tmp_path, precision=precision).fit(Recorder(), datamodule=make_data())


def test_a_split_that_there_is_not_is_named() -> None:
    with pytest.raises(
        LightsaeError, match=r"Noise .*: there is no test split: test_fraction is 0$"
    ):
        make_data(test_fraction=0.0).test_dataloader()
