"""encode_residual: the code and what it leaves are those of the two operations it stands for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import ArgumentError, encode_residual, encode_topk, sparse_residual

Make = Callable[..., Any]

REGULARIZERS = [None, "off_support_l1", "l1_l2_ratio"]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_is_encode_topk_and_sparse_residual(
    regularizer: str | None, backend: Any, make_problem: Make
) -> None:
    x, W_enc, b_enc, b_dec, W_dec = problem = make_problem(23, 6, 40).leaves()
    options: dict[str, Any] = {"regularizer": regularizer, "backend": backend}
    encoded, found = encode_residual(x, W_enc, b_enc, W_dec, b_dec, 4, **options)
    twin = encode_topk(x, W_enc, b_enc, b_dec, 4, **options)
    left = sparse_residual(x, twin.values, twin.indices, W_dec, b_dec, backend=backend)
    ours, theirs = ((*e, *r) for e, r in ((encoded, found), (twin, left)))
    for one, other in zip(ours, theirs, strict=True):
        assert one is other is None or torch.equal(one, other)
    losses = [p.penalty + r.error.sum() for p, r in ((encoded, found), (twin, left))]
    grads = [torch.autograd.grad(loss, tuple(problem)) for loss in losses]
    for name, one, other in zip(problem._fields, *grads, strict=True):
        assert torch.equal(one, other), name


def test_a_decoder_of_another_shape_is_named(make_problem: Make) -> None:
    x, W_enc, b_enc, b_dec, W_dec = make_problem(3, 6, 40)
    with pytest.raises(ArgumentError, match=r"W_dec must be \[d_sae, d_in\], as W_enc"):
        encode_residual(x, W_enc, b_enc, W_dec[:-1], b_dec, 4)


@pytest.mark.parametrize("name", ["x", "W_enc", "b_enc", "W_dec", "b_dec"])
def test_nan_is_named(name: str, make_problem: Make) -> None:
    problem = make_problem(3, 6, 40)
    getattr(problem, name).view(-1)[1] = float("nan")
    x, W_enc, b_enc, b_dec, W_dec = problem
    with pytest.raises(ArgumentError, match=f"{name} has 1 NaN"):
        encode_residual(x, W_enc, b_enc, W_dec, b_dec, 4)


def test_another_regularizer_is_refused(make_problem: Make) -> None:
    x, W_enc, b_enc, b_dec, W_dec = make_problem(3, 6, 40)
    with pytest.raises(ArgumentError, match="regularizer must be 'off_support_l1'"):
        encode_residual(x, W_enc, b_enc, W_dec, b_dec, 4, regularizer="l1")  # type: ignore[arg-type]
