"""Every metric takes a SparseCode in place of values and indices; functions and classes agree."""

import inspect
from collections.abc import Callable
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

import lightsae.metrics
from lightsae.errors import LightsaeError
from lightsae.metrics import (
    L0,
    NMSE,
    R2,
    ClassPurity,
    DeadLatents,
    DecoderCoherence,
    DownstreamLoss,
    FiringDensity,
    Hoyer,
    ImageCodes,
    KRobustness,
    KSparseProbe,
    Monosemanticity,
    MoransI,
    OwnInputMonosemanticity,
    R2Uniform,
    RankProfile,
    TopActivating,
    TruncatedProbe,
    class_purity,
    dead_latents,
    decoder_coherence,
    downstream_loss,
    firing_density,
    hoyer,
    k_robustness,
    k_sparse_probe,
    l0,
    monosemanticity,
    morans_i,
    nmse,
    own_input_monosemanticity,
    pool_by_sample,
    r2,
    r2_uniform,
    rank_profile,
    top_activating,
    truncated_probe,
)
from lightsae.sae import SparseCode

D_SAE, ROWS = 6, 5
# The argument after the code, the metric, the function, and what of their result is compared.
CASES: dict[str, tuple[str | None, Callable[[], Metric], Callable[..., Any], str | None]] = {
    "l0": (None, L0, l0, None),
    "dead": (None, lambda: DeadLatents(D_SAE), dead_latents, None),
    "ms": ("embeddings", lambda: Monosemanticity(D_SAE, 3), monosemanticity, "scores"),
    "top": (
        "sample_index",
        lambda: TopActivating(D_SAE, 2),
        lambda *args, **named: top_activating(*args, n=2, **named),
        "samples",
    ),
    "pooled": ("sample_index", lambda: ImageCodes(D_SAE), pool_by_sample, "values"),
    "hoyer": (None, lambda: Hoyer(D_SAE), hoyer, None),
    "density": (None, lambda: FiringDensity(D_SAE), firing_density, "counts"),
    "own input": (
        "x",
        lambda: OwnInputMonosemanticity(D_SAE, 3),
        own_input_monosemanticity,
        "scores",
    ),
    "purity": (
        "labels",
        lambda: ClassPurity(D_SAE, 2),
        lambda *args, **named: class_purity(*args, n_classes=2, **named),
        "weighted",
    ),
}
BY_FUNCTION: list[tuple[Callable[..., Any], type[Metric]]] = [
    (r2, R2),
    (l0, L0),
    (dead_latents, DeadLatents),
    (monosemanticity, Monosemanticity),
    (top_activating, TopActivating),
    (pool_by_sample, ImageCodes),
    (nmse, NMSE),
    (r2_uniform, R2Uniform),
    (k_robustness, KRobustness),
    (downstream_loss, DownstreamLoss),
    (hoyer, Hoyer),
    (firing_density, FiringDensity),
    (rank_profile, RankProfile),
    (decoder_coherence, DecoderCoherence),
    (own_input_monosemanticity, OwnInputMonosemanticity),
    (class_purity, ClassPurity),
    (morans_i, MoransI),
    (truncated_probe, TruncatedProbe),
    (k_sparse_probe, KSparseProbe),
]


def code() -> SparseCode:
    generator = torch.Generator().manual_seed(0)
    indices = torch.rand(ROWS, D_SAE, generator=generator).topk(3, dim=1).indices
    values = torch.rand(ROWS, 3, generator=generator).sub(0.3).relu()
    return SparseCode(values, indices, D_SAE)


def after(name: str | None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    others = {
        "embeddings": torch.randn(ROWS, 3, generator=generator),
        "sample_index": torch.tensor([4, 9, 9, 2, 4]),
        "x": torch.randn(ROWS, 3, generator=generator),
        "labels": torch.tensor([0, 1, 1, 0, 0]),
    }
    return {} if name is None else {name: others[name]}


def compared(result: Any, attribute: str | None) -> Tensor:
    tensor: Tensor = result if attribute is None else getattr(result, attribute)
    return tensor


@pytest.mark.parametrize("case", CASES)
def test_a_sparse_code_is_its_values_and_indices(case: str) -> None:
    name, make, function, attribute = CASES[case]
    other = after(name)
    values, indices = code().values, code().indices
    metrics = [make() for _ in range(3)]
    pair = {"values": values} if case == "l0" else {"values": values, "indices": indices}
    metrics[0].update(**pair, **other)
    metrics[1].update(code(), **other)
    metrics[2].update(code(), *other.values())
    found = [compared(metric.compute(), attribute) for metric in metrics]
    found += [compared(function(code(), **other), attribute)]
    found += [compared(function(code(), *other.values()), attribute)]
    for each in found[1:]:
        torch.testing.assert_close(each, found[0], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("case", [case for case in CASES if case != "l0"])
def test_indices_beside_a_sparse_code_are_refused(case: str) -> None:
    name, make, _, _ = CASES[case]
    with pytest.raises(LightsaeError, match="indices: a SparseCode has its own, leave them out"):
        make().update(values=code(), indices=code().indices, **after(name))


@pytest.mark.parametrize("case", [case for case in CASES if case != "l0"])
def test_values_without_indices_are_refused(case: str) -> None:
    name, make, function, _ = CASES[case]
    for call in (make().update, function):
        with pytest.raises(
            LightsaeError, match="indices is missing: give values and indices, or a"
        ):
            call(code().values, **after(name))


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][0] is not None])
def test_what_belongs_to_a_code_must_be_given(case: str) -> None:
    name, make, function, _ = CASES[case]
    for call in (make().update, function):
        with pytest.raises(LightsaeError, match=f"{name} is missing"):
            call(code())


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("l0",)])
def test_a_code_of_another_dictionary_is_refused(case: str) -> None:
    name, make, function, _ = CASES[case]
    other = SparseCode(code().values, code().indices, d_sae=99)
    with pytest.raises(LightsaeError, match=f"the code has d_sae = 99, expected d_sae = {D_SAE}"):
        make().update(other, **after(name))
    with pytest.raises(LightsaeError, match="the code has d_sae = 99, expected d_sae = 6"):
        function(other, d_sae=D_SAE, **after(name))
    with pytest.raises(LightsaeError, match="d_sae is missing"):
        function(code().values, code().indices, **after(name))


@pytest.mark.parametrize("case", [case for case in CASES if case != "l0"])
@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (code().indices.double(), "indices is torch.float64, expected integers"),
        (code().indices - 1, r"indices must lie in \[0, d_sae = 6\)"),
        (code().indices + 1, r"indices must lie in \[0, d_sae = 6\)"),
        (code().indices.to("meta"), "values is on cpu but indices is on meta"),
    ],
    ids=["float", "negative", "too-large", "another-device"],
)
def test_indices_that_are_none_are_refused(case: str, indices: Tensor, message: str) -> None:
    name, make, _, _ = CASES[case]
    with pytest.raises(LightsaeError, match=message):
        make().update(code().values, indices, **after(name))


def test_one_collection_takes_everything_by_name() -> None:
    collection = MetricCollection(
        {"r2": R2(2), "l0": L0(), "dead": DeadLatents(D_SAE), "ms": Monosemanticity(D_SAE, 3)},
        compute_groups=False,
    )
    x = torch.arange(10.0).view(ROWS, 2)
    collection.update(values=code(), x_hat=x + 0.5, x=x, **after("embeddings"))
    result = collection.compute()
    assert result["r2"] == r2(x_hat=x + 0.5, x=x)
    assert result["l0"] == l0(code())
    assert result["dead"] == dead_latents(code())


@pytest.mark.parametrize(("function", "metric"), BY_FUNCTION)
def test_a_function_has_the_argument_names_of_its_class(
    function: Callable[..., Any], metric: type[Metric]
) -> None:
    there = {*inspect.signature(metric).parameters, *inspect.signature(metric.update).parameters}
    assert set(inspect.signature(function).parameters) <= there


HELPERS = (
    "anova", "code_inputs", "firings", "grouped_sums", "linear_probe", "metric_base", "r2_moments",
    "reconstruction_inputs", "row_sums", "sampled_rows", "weighted_rows",
)  # fmt: skip


def test_every_public_name_is_exported() -> None:
    modules = [
        import_module(found.name)
        for found in walk_packages(lightsae.metrics.__path__, "lightsae.metrics.")
        if found.name.rpartition(".")[2] not in HELPERS
    ]
    public = {
        name
        for module in modules
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__
    }
    assert public | {"Pooling"} == set(lightsae.metrics.__all__)
