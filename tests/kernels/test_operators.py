"""The custom operators: torch's own checks, dtypes and errors as in eager, one sort in a graph."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
from lightsae_kernels import ArgumentError, encode_topk, operators, sparse_decode, sparse_residual
from torch import Tensor
from torch._dynamo.exc import Unsupported
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

Make = Callable[..., Any]

B, D_IN, D_SAE, K = 9, 6, 40, 3
BACKENDS = [
    pytest.param(False, torch.float64, id="cpu"),
    pytest.param(True, torch.float16, id="fused-fp16"),
]
# opcheck looks at the gradients of its own copies.
of_opcheck = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
REGULARIZERS = [None, "off_support_l1", "l1_l2_ratio"]


@pytest.fixture(autouse=True)
def nothing_compiled_yet() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def problem(make_problem: Make) -> Any:
    return make_problem(B, D_IN, D_SAE)


def arguments(problem: Any, fused: bool, dtype: torch.dtype) -> list[Tensor]:
    if fused:
        pytest.importorskip("lightsae_kernels.fused")
        if torch.cuda.is_available():
            pytest.skip("without an interpreter the kernels need CUDA tensors")
    return [t.to(dtype).requires_grad_() for t in problem]


def given() -> tuple[Tensor, Tensor]:
    indices = torch.stack([torch.randperm(D_SAE)[:K] for _ in range(B)])
    return indices, torch.arange(D_SAE) % 3 > 0


@of_opcheck
@pytest.mark.parametrize(("fused", "dtype"), BACKENDS)
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("support", ["selected", "given"])
def test_encode_topk_passes_the_checks_of_torch(
    fused: bool, dtype: torch.dtype, regularizer: Any, support: str, problem: Any
) -> None:
    *encoder, _ = arguments(problem, fused, dtype)
    indices, active = given() if support == "given" else (None, None)
    keep = fused and regularizer is not None and dtype == torch.float16
    options = (regularizer, True, 1e-8, indices, active, None, dtype, fused, keep)
    opcheck(torch.ops.lightsae.encode_topk, (*encoder, K, *options))


@pytest.mark.parametrize(("fused", "dtype"), BACKENDS)
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("needed", [[True] * 4, [False, True, True, False]], ids=["all", "some"])
def test_encode_topk_backward_passes_the_checks_of_torch(
    fused: bool, dtype: torch.dtype, regularizer: Any, needed: list[bool], problem: Any
) -> None:
    *encoder, _ = (t.detach() for t in arguments(problem, fused, dtype))
    keep = fused and regularizer is not None and dtype == torch.float16
    options = (regularizer, True, 1e-8, None, None, None, dtype, fused, keep)
    values, indices, penalty, *rest = operators.encode_topk(*encoder, K, *options)
    order = operators.latent_order(indices, D_SAE, fused)
    upstream = (torch.ones_like(values), torch.ones_like(penalty))
    found = (values, indices, *rest, order)
    opcheck(
        torch.ops.lightsae.encode_topk_backward,
        (*upstream, *encoder, *found, K, *options, needed),
    )


@of_opcheck
@pytest.mark.parametrize(("fused", "dtype"), BACKENDS)
def test_the_decoding_operators_pass_the_checks_of_torch(
    fused: bool, dtype: torch.dtype, problem: Any
) -> None:
    x, _, _, b_dec, W_dec = arguments(problem, fused, dtype)
    indices, _ = given()
    values = torch.rand(B, K, dtype=dtype).requires_grad_()
    turned = x.detach().t().contiguous().t().requires_grad_()
    opcheck(torch.ops.lightsae.latent_order, (indices, D_SAE, fused))
    for bias in (b_dec, None):
        opcheck(torch.ops.lightsae.sparse_decode, (values, indices, W_dec, bias, fused))
        decoder = (values, indices, W_dec, bias, fused)
        opcheck(torch.ops.lightsae.sparse_residual, (turned, *decoder))
    order = operators.latent_order(indices, D_SAE, fused)
    code = (values.detach(), indices, W_dec.detach(), order, fused)
    for rows in (None, torch.ones(B)):
        for needed in ([True, True], [False, True], [True, False]):
            grad = torch.ones(B, D_IN, dtype=torch.float32 if fused else dtype)
            arguments_ = (grad, rows, *code, needed)
            opcheck(torch.ops.lightsae.sparse_decode_backward, arguments_)


def whole(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, W_dec: Tensor) -> list[Tensor]:
    code = encode_topk(x, W_enc, b_enc, b_dec, K, regularizer="l1_l2_ratio")
    x_hat = sparse_decode(code.values, code.indices, W_dec, b_dec)
    return [*code[:4], x_hat, *sparse_residual(x, code.values, code.indices, W_dec, b_dec)]


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("autocast", [True, False])
def test_a_graph_has_the_numbers_and_dtypes_of_eager(
    stored: torch.dtype, autocast: bool, problem: Any
) -> None:
    leaves = [t.to(stored) for t in problem]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = whole(*leaves)
        actual = torch.compile(whole, backend="aot_eager", fullgraph=True)(*leaves)
    assert [t.dtype for t in actual] == [t.dtype for t in expected]
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize(("fused", "dtype"), BACKENDS)
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
def test_the_gradients_of_a_graph_are_those_of_eager(
    fused: bool, dtype: torch.dtype, regularizer: Any, masked: bool, problem: Any
) -> None:
    leaves = arguments(problem, fused, dtype)
    backend: Any = "triton" if fused else "cpu"
    names = ("x", "W_enc", "b_enc", "b_dec", "W_dec")

    def loss(x: Tensor, *parameters: Tensor) -> Tensor:
        *encoder, W_dec = parameters
        code = encode_topk(
            x, *encoder, K, regularizer=regularizer, batch_active_only=masked, backend=backend
        )
        again = (code.values, code.indices, W_dec, encoder[2])
        x_hat = sparse_decode(*again, backend=backend)
        residual, error = sparse_residual(x, *again, backend=backend)
        ramp = torch.linspace(-1, 1, D_IN)
        return error.mean() + 0.3 * code.penalty + ((residual + x_hat) * ramp).sum()

    expected = torch.autograd.grad(loss(*leaves), leaves)
    actual = torch.autograd.grad(
        torch.compile(loss, backend="aot_eager", fullgraph=True)(*leaves), leaves
    )
    for name, a, e in zip(names, actual, expected, strict=True):
        # Sums of some dozens of terms of order 1, added in another order.
        torch.testing.assert_close(
            a, e, rtol=4 * torch.finfo(dtype).eps, atol=64 * torch.finfo(dtype).eps, msg=name
        )


def test_a_given_support_and_mask_come_back(problem: Any) -> None:
    indices, active = given()

    def encode(*encoder: Tensor) -> Any:
        return encode_topk(*encoder, K, indices=indices, batch_active=active)

    code = torch.compile(encode, backend="aot_eager", fullgraph=True)(*problem.encoder)
    assert torch.equal(code.indices, indices)
    assert torch.equal(code.batch_active, active)


@pytest.mark.parametrize(("fused", "dtype"), BACKENDS)
@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_a_given_support_that_repeats_a_latent_has_the_gradients_of_eager(
    fused: bool, dtype: torch.dtype, regularizer: Any, problem: Any
) -> None:
    x, W_enc, b_enc, b_dec, _ = arguments(problem, fused, dtype)
    indices = torch.tensor([[3, 3, 1]] * B)
    backend: Any = "triton" if fused else "cpu"

    def loss(*encoder: Tensor) -> Tensor:
        code = encode_topk(*encoder, K, indices=indices, regularizer=regularizer, backend=backend)
        return code.values.sum() + code.penalty

    encoder = (x, W_enc, b_enc, b_dec)
    expected = torch.autograd.grad(loss(*encoder), encoder)
    graph = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for a, e in zip(torch.autograd.grad(graph(*encoder), encoder), expected, strict=True):
        torch.testing.assert_close(
            a, e, rtol=4 * torch.finfo(dtype).eps, atol=64 * torch.finfo(dtype).eps
        )


def test_no_check_of_the_arguments_fixes_the_size_of_the_batch(problem: Any) -> None:
    def everything(x: Tensor, indices: Tensor) -> Any:
        code = encode_topk(x, *problem.encoder[1:], K, indices=indices)
        return sparse_residual(x, code.values, indices, problem.W_dec, problem.b_dec)

    x, (indices, _) = problem.x, given()
    for tensor in (x, indices):
        torch._dynamo.mark_dynamic(tensor, 0)
    found = torch.compile(everything, backend="aot_eager", fullgraph=True)(x, indices)
    assert torch.equal(found.error, everything(x, indices).error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.zeros(2, 5)}, r"x must be \[B, d_in = 6\] \(flatten tokens first\)"),
        ({"k": 41}, "k must be an integer between 1 and d_sae = 40, got 41"),
        ({"k": 2.5}, "k must be an integer between 1 and d_sae = 40, got 2.5"),
        ({"b_enc": torch.zeros(3)}, r"b_enc must be \[d_sae = 40\], got shape \(3,\)"),
        ({"W_enc": torch.zeros(40, 6).double()}, "x is torch.float32 but W_enc is torch.float64"),
        ({"regularizer": "l2"}, "regularizer must be 'off_support_l1', 'l1_l2_ratio' or None"),
        ({"backend": "cuda"}, "backend must be 'auto', 'reference', 'cpu' or 'triton'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused_while_the_graph_is_made(
    change: dict[str, Any], said: str, problem: Any
) -> None:
    names = ("x", "W_enc", "b_enc", "b_dec")
    wrong = dict(zip(names, (t.float() for t in problem.encoder), strict=True)) | {"k": K} | change

    def encode() -> Any:
        return encode_topk(**wrong)

    with pytest.raises((ArgumentError, Unsupported), match=said):
        torch.compile(encode, backend="aot_eager", fullgraph=True)()
    with pytest.raises(ArgumentError, match=said):
        torch.compile(encode, backend="aot_eager")()


def test_what_is_wrong_in_a_tensor_is_refused_when_the_graph_runs(problem: Any) -> None:
    graph = torch.compile(whole, backend="aot_eager", fullgraph=True)
    graph(*problem)
    problem.W_dec[3, 1] = torch.nan
    with pytest.raises(ArgumentError, match=r"W_dec has 1 NaN or .*, the first at \(3, 1\)"):
        graph(*problem)


def test_a_graph_for_a_gpu_refuses_the_cpu(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    values, indices = torch.ones(B, K), torch.zeros(B, K, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="needs CUDA tensors, got a CPU tensor"):
        operators.sparse_decode(values, indices, problem.W_dec.float(), None, True)


def test_a_second_derivative_is_refused(problem: Any) -> None:
    leaves = problem.leaves()
    code = operators.encode_topk(
        *leaves.encoder, K, None, True, 1e-8, None, None, None, torch.float64, False, False
    )
    (first,) = torch.autograd.grad(code[0].sum(), leaves.W_enc, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        first.sum().backward()


def test_encoder_and_decoder_of_a_graph_share_one_sort(
    problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sorts = []
    original = Tensor.sort

    def counting(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        sorts.append(self.shape)
        return original(self, *args, **kwargs)

    leaves = problem.leaves()
    *_, error = torch.compile(whole, backend="aot_eager_decomp_partition", fullgraph=True)(*leaves)
    error.sum().backward()
    for leaf in leaves:
        leaf.grad = None
    *_, error = torch.compile(whole, backend="aot_eager_decomp_partition", fullgraph=True)(*leaves)
    monkeypatch.setattr(Tensor, "sort", counting)
    error.sum().backward()
    assert sorts == [(B * K,)]


def test_eager_calls_do_not_go_through_the_operators(problem: Any) -> None:
    class Seen(TorchDispatchMode):
        names: ClassVar[set[str]] = set()

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.names.add(func.namespace)
            return func(*args, **(kwargs or {}))

    leaves = problem.leaves()
    with Seen() as seen:
        whole(*leaves)[-1].sum().backward()
    assert seen.names == {"aten"}
