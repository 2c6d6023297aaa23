"""sparse_decode: values and gradients against the dense product of the definition."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import PairOrder, encode_topk, sparse_decode

Make = Callable[..., Any]
Close = Callable[..., None]


@pytest.mark.parametrize(
    ("B", "d_in", "d_sae", "k"), [(41, 12, 201, 7), (1, 1, 1, 1), (5, 3, 8, 8)]
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["fp64", "fp32"]
)
def test_equals_the_definition(
    B: int, d_in: int, d_sae: int, k: int, dtype: torch.dtype, tolerance: float,
    make_problem: Make, assert_close: Close,
) -> None:  # fmt: skip
    problem = make_problem(B, d_in, d_sae)
    generator = torch.Generator().manual_seed(5)
    indices = torch.randint(0, d_sae, (B, k), generator=generator)
    values = torch.randn(B, k, dtype=torch.float64, generator=generator)
    upstream = torch.randn(B, d_in, dtype=torch.float64, generator=generator)

    def run(backend: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        leaves = [
            t.to(dtype).clone().requires_grad_() for t in (values, problem.W_dec, problem.b_dec)
        ]
        x_hat = sparse_decode(leaves[0], indices, leaves[1], leaves[2], backend=backend)
        return (x_hat, *torch.autograd.grad((x_hat * upstream.to(dtype)).sum(), leaves))

    names = ("x_hat", "d_values", "d_W_dec", "d_b_dec")
    pairs = zip(names, run("cpu", dtype), run("reference", torch.float64), strict=True)
    for name, actual, expected in pairs:
        assert_close(name, actual, expected, tolerance)


def test_without_bias_and_with_an_empty_batch() -> None:
    W_dec = torch.eye(4, 3)
    one = sparse_decode(torch.tensor([[2.0, 3.0]]), torch.tensor([[0, 2]]), W_dec)
    assert one.tolist() == [[2, 0, 3]]
    values = torch.zeros(0, 2, requires_grad=True)
    none = sparse_decode(values, torch.zeros(0, 2, dtype=torch.int64), W_dec, torch.ones(3))
    none.sum().backward()
    assert none.shape == (0, 3)
    assert values.grad is not None


def test_the_graph_can_be_walked_twice(make_problem: Make) -> None:
    problem = make_problem(4, 3, 8).leaves()
    values = torch.ones(4, 2, dtype=torch.float64, requires_grad=True)
    loss = sparse_decode(values, torch.zeros(4, 2, dtype=torch.int64), problem.W_dec).square().sum()
    first = torch.autograd.grad(loss, [values, problem.W_dec], retain_graph=True)
    second = torch.autograd.grad(loss, [values, problem.W_dec])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Sorts:
    """Shapes that are sorted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[torch.Size] = []
        original = torch.Tensor.sort

        def counting(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self.shapes.append(tensor.shape)
            return original(tensor, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, "sort", counting)


@pytest.mark.parametrize(("shared", "sorts"), [(True, 1), (False, 2)])
def test_encoder_and_decoder_may_share_one_sort(
    shared: bool, sorts: int, make_problem: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem(16, 4, 64).leaves()
    order = PairOrder() if shared else None
    code = encode_topk(*problem.encoder, 3, order=order)
    x_hat = sparse_decode(code.values, code.indices, problem.W_dec, problem.b_dec, order=order)
    counted = Sorts(monkeypatch)
    x_hat.square().sum().backward()
    assert counted.shapes == [(48,)] * sorts


def test_an_order_of_other_indices_is_not_taken() -> None:
    order, W_dec = PairOrder(), torch.eye(3).requires_grad_()
    indices, values = torch.tensor([[0, 1]]), torch.tensor([[2.0, 3.0]])

    def gradient() -> list[list[float]]:
        loss = sparse_decode(values, indices, W_dec, order=order).sum()
        return torch.autograd.grad(loss, W_dec)[0].tolist()

    assert gradient() == [[2.0] * 3, [3.0] * 3, [0.0] * 3]
    indices[0, 0] = 2
    assert gradient() == [[0.0] * 3, [3.0] * 3, [2.0] * 3]
    indices = torch.tensor([[1, 0]])
    assert gradient() == [[3.0] * 3, [2.0] * 3, [0.0] * 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": torch.zeros(4, 3, dtype=torch.int64)}, r"indices must be \[B, k\]"),
        ({"indices": torch.zeros(4, 2, dtype=torch.int32)}, "indices must be int64"),
        ({"indices": torch.full((4, 2), -1)}, r"indices must lie in \[0, d_sae = 8\)"),
        ({"values": torch.full((4, 2), float("nan"))}, "values has 8 NaN"),
        ({"W_dec": torch.full((8, 3), float("inf"))}, "W_dec has 24 NaN or infinite"),
        ({"b_dec": torch.zeros(4)}, r"b_dec must be \[d_in = 3\]"),
        ({"b_dec": torch.zeros(3).double()}, "W_dec is torch.float32 but b_dec is torch.float64"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments = {
        "values": torch.ones(4, 2),
        "indices": torch.zeros(4, 2, dtype=torch.int64),
        "W_dec": torch.ones(8, 3),
    }
    with pytest.raises(ValueError, match=message):
        sparse_decode(**(arguments | change))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_indices_may_serve_dictionaries_of_different_heights(backend: Any) -> None:
    indices, values = torch.tensor([[1, 0], [1, 2]]), torch.ones(2, 2)
    for d_sae in (3, 5, 4):
        W_dec = torch.ones(d_sae, 2, requires_grad=True)
        sparse_decode(values, indices, W_dec, backend=backend).sum().backward()
        assert W_dec.grad is not None
        assert W_dec.grad[:, 0].tolist() == [1.0, 2.0, 1.0, 0.0, 0.0][:d_sae]
