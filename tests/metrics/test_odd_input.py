"""What users give to metrics besides what the docs say: taken, or refused in one line."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric

from lightsae.errors import LightsaeError
from lightsae.metrics import (
    L0,
    NMSE,
    R2,
    ClassPurity,
    DeadLatents,
    DecoderCoherence,
    FiringDensity,
    FrequencyCorrelation,
    Hoyer,
    ImageCodes,
    KRobustness,
    LabelledRows,
    Monosemanticity,
    MoransI,
    OwnInputMonosemanticity,
    R2Uniform,
    RankProfile,
    TopActivating,
    Uniqueness,
    r2,
)
from lightsae.sae import SparseAutoencoder, SparseCode, TopK

D_SAE, D_IN, ROWS = 16, 8, 10
MAKE: dict[str, Callable[[], Metric]] = {
    "l0": L0,
    "dead": lambda: DeadLatents(D_SAE),
    "ms": lambda: Monosemanticity(D_SAE, 5),
    "top": lambda: TopActivating(D_SAE, 3),
    "pooled": lambda: ImageCodes(D_SAE),
    "uniqueness": lambda: Uniqueness(D_SAE, 3),
    "frequency": lambda: FrequencyCorrelation(D_SAE, 5),
    "own_input": lambda: OwnInputMonosemanticity(D_SAE, D_IN),
    "purity": lambda: ClassPurity(D_SAE, 3),
    "morans_i": lambda: MoransI(D_SAE, (2, 1)),
    "hoyer": lambda: Hoyer(D_SAE),
    "density": lambda: FiringDensity(D_SAE),
    "r2": lambda: R2(D_IN),
    "r2_uniform": lambda: R2Uniform(D_IN),
    "nmse": NMSE,
}
OF_INPUTS = ["r2", "r2_uniform", "nmse"]
OF_CODES = [name for name in MAKE if name not in OF_INPUTS]
# What `update` takes behind a code.
AFTER = {
    "ms": ["embeddings"],
    "frequency": ["embeddings"],
    "own_input": ["x"],
    "top": ["sample_index"],
    "pooled": ["sample_index"],
    "uniqueness": ["sample_index"],
    "purity": ["labels"],
    "morans_i": ["sample_index", "patch_index"],
}


def rows() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "x": torch.randn(ROWS, D_IN, generator=generator),
        "embeddings": torch.randn(ROWS, 5, generator=generator),
        "sample_index": torch.arange(ROWS) // 2 + 2**62,
        "patch_index": torch.arange(ROWS) % 2,
        "labels": torch.arange(ROWS) % 3,
    }


def sae() -> SparseAutoencoder:
    torch.manual_seed(0)
    return SparseAutoencoder(D_IN, D_SAE, TopK(4))


def given(name: str, code: SparseCode, part: slice = slice(None)) -> dict[str, Any]:
    """What `update` of a metric is given for a code."""
    others = {key: value[part] for key, value in rows().items()}
    if name in OF_INPUTS:
        return {"x_hat": sae().decode(code), "x": others["x"]}
    return {"values": code} | {after: others[after] for after in AFTER.get(name, [])}


def figures(metric: Metric) -> list[Tensor]:
    """The tensors of a result."""
    result = metric.compute()
    return [result] if isinstance(result, Tensor) else list(vars(result).values())


def assert_same(one: Metric, other: Metric) -> None:
    for left, right in zip(figures(one), figures(other), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12, equal_nan=True)


def updated(name: str, code: SparseCode) -> Metric:
    metric = MAKE[name]()
    metric.update(**given(name, code, slice(len(code))))
    return metric


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_codes_of_any_width(name: str, dtype: torch.dtype) -> None:
    code = sae().encode(rows()["x"])
    other = SparseCode(code.values.to(dtype), code.indices, D_SAE)
    wide = SparseCode(code.values.to(dtype).float(), code.indices, D_SAE)
    if name in OF_INPUTS:
        assert updated(name, other).compute() < 3
    else:
        assert_same(updated(name, other), updated(name, wide))


@pytest.mark.parametrize("name", MAKE)
def test_codes_made_under_autocast(name: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        code = sae().encode(rows()["x"])
        metric = updated(name, code)
    assert code.values.dtype == torch.bfloat16
    assert all(figure.dtype != torch.bfloat16 for figure in figures(metric))


@pytest.mark.parametrize("name", MAKE)
def test_an_empty_batch_changes_nothing(name: str) -> None:
    code = sae().encode(rows()["x"])
    metric = updated(name, code)
    nothing = SparseCode(code.values[:0], code.indices[:0], D_SAE)
    metric.update(**given(name, nothing, slice(0)))
    assert_same(metric, updated(name, code))


@pytest.mark.parametrize("name", OF_CODES)
def test_a_code_without_places_fires_nowhere(name: str) -> None:
    code = SparseCode(torch.zeros(ROWS, 0), torch.zeros(ROWS, 0).long(), D_SAE)
    figure = figures(updated(name, code))[0]
    expected = {"l0": 0.0, "dead": float(D_SAE)}
    if name in expected:
        assert figure.item() == expected[name]
    else:
        assert not (figure > 0).any() or name == "density"


@pytest.mark.parametrize("name", MAKE)
def test_a_loader_s_ragged_last_batch_counts_by_its_rows(name: str) -> None:
    # In float64, so that codes do not depend on the size of a batch.
    model, x = sae().double(), rows()["x"].double()
    whole = MAKE[name]()
    whole.update(**given(name, model.encode(x)))
    metric = MAKE[name]()
    for (numbers,) in DataLoader(TensorDataset(torch.arange(ROWS)), batch_size=4):
        part = slice(int(numbers[0]), int(numbers[-1]) + 1)
        metric.update(**given(name, model.encode(x[part]), part))
    assert_same(metric, whole)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_before_anything_was_seen_there_is_a_result_too(name: str) -> None:
    figure = figures(MAKE[name]())[0]
    assert figure.isnan().all() or not (figure > D_SAE).any()


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda metric: pickle.loads(pickle.dumps(metric))],
    ids=["deepcopy", "pickle"],
)  # fmt: skip
def test_a_copy_goes_on_by_itself(name: str, copied: Callable[[Metric], Metric]) -> None:
    code = sae().encode(rows()["x"])
    metric, once = updated(name, code), updated(name, code)
    other = copied(metric)
    assert_same(other, once)
    other.reset()
    assert_same(metric, once)


@pytest.mark.parametrize("name", MAKE)
def test_reset_forgets_everything(name: str) -> None:
    code = sae().encode(rows()["x"])
    metric = updated(name, code)
    metric.reset()
    metric.update(**given(name, code))
    assert_same(metric, updated(name, code))


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sums_stay_as_wide_as_they_are(name: str, dtype: torch.dtype) -> None:
    code = sae().encode(rows()["x"])
    metric = MAKE[name]().set_dtype(dtype)
    # As Lightning does it where the whole module is of half precision.
    torch.nn.ModuleList([metric]).to(dtype)
    metric.update(**given(name, code))
    torch.nn.ModuleList([metric]).to(dtype)
    metric.set_dtype(dtype)
    for left, right in zip(figures(metric), figures(updated(name, code)), strict=True):
        assert torch.equal(left.nan_to_num(), right.nan_to_num())
    metric.reset()
    metric.update(**given(name, code))
    assert_same(metric, updated(name, code))


@pytest.mark.parametrize("name", MAKE)
def test_a_metric_moves_between_devices(name: str) -> None:
    metric = updated(name, sae().encode(rows()["x"])).to("meta")
    assert metric.device.type == "meta"


@pytest.mark.parametrize("name", [name for name in OF_CODES if name != "l0"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_activations_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    code = sae().encode(rows()["x"])
    bad = SparseCode(torch.full_like(code.values, value), code.indices, D_SAE)
    with pytest.raises(LightsaeError, match="values must be finite"):
        updated(name, bad)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("ms", "embeddings"),
        ("top", "sample_index"),
        ("pooled", "sample_index"),
        ("r2", "x_hat"),
        ("r2", "x"),
        ("ms", "rows"),
        ("own_input", "x"),
        ("purity", "labels"),
        ("morans_i", "sample_index"),
        ("morans_i", "patch_index"),
        ("nmse", "x_hat"),
        ("r2_uniform", "x"),
    ],
)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensor: tensor.to("meta"), "is on (cpu|meta)"),
        (lambda tensor: tensor.detach().numpy(), "is a numpy.ndarray, expected a tensor"),
        (lambda tensor: tensor.tolist(), "is a list, expected a tensor"),
    ],
    ids=["another-device", "array", "list"],
)
def test_what_is_no_tensor_here_is_named(
    name: str, argument: str, change: Callable[[Tensor], Any], told: str
) -> None:
    arguments = given(name, sae().encode(rows()["x"]))
    if argument == "rows":
        code = arguments.pop("values")
        arguments |= {"values": code.values.flatten(), "indices": code.indices.flatten()}
        arguments["rows"] = torch.arange(ROWS).repeat_interleave(4)
    arguments[argument] = change(arguments[argument])
    with pytest.raises(LightsaeError, match=told):
        MAKE[name]().update(**arguments)


@pytest.mark.parametrize("name", OF_CODES)
def test_arrays_as_codes_are_named(name: str) -> None:
    arguments = given(name, sae().encode(rows()["x"]))
    code = arguments.pop("values")
    pair = {"values": code.values.detach().numpy(), "indices": code.indices.numpy()}
    with pytest.raises(LightsaeError, match=r"values is a numpy\.ndarray, expected a tensor"):
        MAKE[name]().update(**({"values": pair["values"]} if name == "l0" else pair), **arguments)


@pytest.mark.parametrize(
    ("size", "told"),
    [(0, "= 0, expected at least 1"), ("4", "= '4', expected an integer of at least 1")],
)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (R2, "d_in"),
        (DeadLatents, "d_sae"),
        (lambda size: Monosemanticity(size, 3), "d_sae"),
        (lambda size: Monosemanticity(3, size), "d_embed"),
        (lambda size: TopActivating(size, 3), "d_sae"),
        (lambda size: TopActivating(3, size), "n"),
        (ImageCodes, "d_sae"),
        (Hoyer, "d_sae"),
        (FiringDensity, "d_sae"),
        (DecoderCoherence, "d_sae"),
        (R2Uniform, "d_in"),
        (lambda size: KRobustness(3, [size]), "k"),
        (lambda size: RankProfile(size, 3), "d_sae"),
        (lambda size: RankProfile(3, size), "k"),
        (lambda size: RankProfile(3, 3, max_rows=size), "max_rows"),
        (lambda size: RankProfile(3, 3, rows=size), "rows"),
        (lambda size: LabelledRows(3, size), "k"),
        (lambda size: ClassPurity(3, size), "n_classes"),
        (lambda size: MoransI(3, (size, 2)), "grid"),
    ],
    ids=lambda each: each if isinstance(each, str) else None,
)
def test_sizes_that_are_none_are_refused(
    make: Callable[[Any], Metric], name: str, size: Any, told: str
) -> None:
    with pytest.raises(LightsaeError, match=f"^{name} {told}"):
        make(size)


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (torch.tensor(1.0), r"x has shape \[\], expected \[\.\.\., d_in\]"),
        (torch.zeros(3, 0), r"x has shape \[3, 0\], expected \[\.\.\., d_in\]"),
    ],
    ids=["scalar", "no-width"],
)
def test_r2_of_no_rows_of_numbers_is_refused(x: Tensor, told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        r2(x_hat=x, x=x)


def test_numpy_sizes_are_sizes() -> None:
    assert DeadLatents(np.int64(3)).d_sae == 3
