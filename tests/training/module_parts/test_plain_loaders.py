"""Loaders of any kind: what a batch may be, where width, scale and centre come from."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from lightsae.activations import ActivationBatch
from lightsae.errors import LightsaeError
from lightsae.training import SAEModule

from ..helpers import D_IN, make_data, make_module, make_trainer, metrics

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")

SAID = "scale and b_dec come from the first {} rows of the training loader"


def rows(count: int = 96, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, D_IN, generator=torch.Generator().manual_seed(0)).to(dtype) + 1


def batched(make: Callable[[Tensor], Any], x: Tensor | None = None) -> DataLoader[Any]:
    """A loader of batches of 16 rows, each made into something by a function."""
    batches = [make(part) for part in (rows() if x is None else x).split(16)]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def state(module: SAEModule) -> dict[str, Tensor]:
    return module.sae.state_dict()


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: x,
    "list of one": lambda x: [x],
    "tuple of one": lambda x: (x,),
    "batch": lambda x: ActivationBatch(x, *torch.zeros(2, len(x), dtype=torch.int64), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_may_be_a_tensor_or_a_list_of_one(form: str, tmp_path: Path) -> None:
    def trained(name: str) -> SAEModule:
        module = make_module()
        loader = batched(FORMS[name])
        trainer = make_trainer(tmp_path / name)
        with pytest.warns(UserWarning, match=SAID.format(96)):
            trainer.fit(module, loader, loader)
        [tested] = trainer.test(module, loader, verbose=False)
        [validated] = trainer.validate(module, loader, verbose=False)
        assert tested["test/r2"] == validated["val/r2"] > 0
        codes = trainer.predict(module, loader)
        assert codes is not None
        assert [len(code.values) for code in codes] == [16] * 6
        return module

    found, expected = trained(form), trained("batch")
    assert all(torch.equal(t, state(expected)[name]) for name, t in state(found).items())
    assert metrics(tmp_path / form) == metrics(tmp_path / "batch")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.filterwarnings("ignore:scale and b_dec come from")
def test_rows_may_be_of_any_float_dtype(dtype: torch.dtype, precision: Any, tmp_path: Path) -> None:
    module, loader = make_module(), batched(FORMS["tensor"], rows(dtype=dtype))
    trainer = make_trainer(tmp_path, precision=precision, max_epochs=1)
    trainer.fit(module, loader, loader)
    assert trainer.callback_metrics["val/loss"].isfinite()


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "integers": (lambda x: x.long(), "has dtype torch.int64, expected a float"),
    "a vector": (lambda x: x[0], r"has shape \[6\], expected \[rows, d_in\]"),
    "tokens": (lambda x: x[None], r"has shape \[1, 16, 6\], expected \[rows, d_in\]"),
    "another width": (lambda x: x[:, :5], "has rows of width 5, the autoencoder has d_in = 6"),
    "two tensors": (lambda x: [x, x], "is a list of 2 items, expected"),
    "nothing": (lambda x: [], "is a list of 0 items, expected"),
    "a dict": (lambda x: {"x": x}, "is a dict with keys x, expected"),
    "an object": (lambda x: SimpleNamespace(x=x), "is of type types.SimpleNamespace, expected"),
}


@pytest.mark.parametrize("task", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("form", REFUSED)
def test_any_other_batch_is_refused_in_one_line(form: str, task: str, tmp_path: Path) -> None:
    make, message = REFUSED[form]
    with pytest.raises(LightsaeError, match=f"a batch {message}") as error:
        getattr(make_trainer(tmp_path), task)(make_module(d_in=D_IN), batched(make))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("task", ["validate", "test", "predict"])
def test_the_width_comes_from_the_first_batch(task: str, tmp_path: Path) -> None:
    module = make_module()
    getattr(make_trainer(tmp_path), task)(module, batched(FORMS["list of one"]))
    assert module.sae.d_in == D_IN
    assert module.sae.scale == 1


def test_scale_and_centre_come_from_the_first_rows(tmp_path: Path) -> None:
    module = make_module(init_rows=40)
    with pytest.warns(UserWarning, match=SAID.format(40)) as said:
        make_trainer(tmp_path, max_epochs=0).fit(module, batched(FORMS["tensor"]))
    assert len([warning for warning in said if "scale and b_dec" in str(warning.message)]) == 1
    expected = make_module(d_in=D_IN).sae
    expected.initialize_(rows()[:40])
    assert torch.equal(module.sae.scale, expected.scale)
    assert torch.equal(module.sae.b_dec, expected.b_dec)


@pytest.mark.filterwarnings("ignore:scale and b_dec come from")
def test_looking_at_the_data_changes_neither_their_order_nor_the_weights(tmp_path: Path) -> None:
    def trained(name: str, d_in: int | None, init_rows: int) -> SAEModule:
        module = make_module(d_in=d_in, init_rows=init_rows)
        torch.manual_seed(1)
        loader = DataLoader(TensorDataset(rows()), batch_size=16, shuffle=True)
        trainer = make_trainer(tmp_path / name, max_epochs=1)
        trainer.fit(module, loader)
        return module

    one, two = trained("one", D_IN, 96), trained("two", D_IN, 200)
    assert all(torch.equal(t, state(two)[name]) for name, t in state(one).items())


SHUFFLED: dict[str, Callable[[TensorDataset, torch.Generator], DataLoader[Any]]] = {
    "of the loader": lambda data, own: DataLoader(data, 16, shuffle=True, generator=own),
    "of its sampler": lambda data, own: DataLoader(
        data, 16, sampler=RandomSampler(data, generator=own)
    ),
    "of its batch sampler's sampler": lambda data, own: DataLoader(
        data, batch_sampler=BatchSampler(RandomSampler(data, generator=own), 16, drop_last=False)
    ),
    "of a sampler of batches": lambda data, own: DataLoader(
        data,
        batch_size=None,
        sampler=BatchSampler(RandomSampler(data, generator=own), 16, drop_last=False),
    ),
}


class Seen(Callback):
    """Keeps the batches of a fit."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: list[Tensor], i: int) -> None:
        self.batches.append(batch[0])


@pytest.mark.parametrize("generator", SHUFFLED)
@pytest.mark.filterwarnings("ignore:scale and b_dec come from")
def test_looking_at_the_data_leaves_a_generator_where_it_was(
    generator: str, tmp_path: Path
) -> None:
    def loader() -> DataLoader[Any]:
        own = torch.Generator().manual_seed(1)
        return SHUFFLED[generator](TensorDataset(rows()), own)

    seen = Seen()
    make_trainer(tmp_path, max_epochs=1, callbacks=[seen]).fit(make_module(), loader())
    assert torch.equal(torch.cat(seen.batches), torch.cat([batch[0] for batch in loader()]))


@pytest.mark.filterwarnings("ignore:scale and b_dec come from")
def test_a_loader_that_remembers_its_position_is_read_from_the_start(
    shards: Path, tmp_path: Path
) -> None:
    data = make_data(shards)
    data.setup()
    loader = data.train_dataloader()
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(make_module(), loader, data.val_dataloader())
    assert loader.epoch == 0
    assert trainer.global_step == 10


class Tensors(LightningDataModule):
    """A user's own, which knows nothing of this package."""

    def train_dataloader(self) -> DataLoader[Any]:
        return batched(FORMS["tensor"])

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def test_a_data_module_of_ones_own_will_do(tmp_path: Path) -> None:
    module = make_module()
    with pytest.warns(UserWarning, match=SAID.format(96)):
        make_trainer(tmp_path).fit(module, Tensors())
    assert module.sae.scale != 1
    assert module.sae.d_in == D_IN


def once() -> Iterator[Tensor]:
    yield from rows().split(16)


def test_rows_that_come_only_once_are_not_used_up(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=r"can be read only once.*d_in"):
        make_trainer(tmp_path).fit(make_module(), once())
    with pytest.raises(LightsaeError, match=r"can be read only once.*sae\.initialize_"):
        make_trainer(tmp_path).fit(make_module(d_in=D_IN), once())
    module = make_module(d_in=D_IN)
    module.sae.initialize_(rows())
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, once())
    assert trainer.global_step == 6


def test_no_rows_at_all_are_told(tmp_path: Path) -> None:
    empty = DataLoader([], batch_size=None)  # type: ignore[arg-type, var-annotated]
    with pytest.raises(LightsaeError, match="the training loader has no batch"):
        make_trainer(tmp_path).fit(make_module(), empty)
