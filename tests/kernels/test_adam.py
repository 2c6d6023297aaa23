"""One pass of Adam: what it equals, what it leaves alone, what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import AdamSettings, ArgumentError, Quantized, adam_step_
from lightsae_kernels.quantized_moments import dequantize, dither, quantize_, quantized_zeros
from torch import Tensor
from torch.nn import functional as F

BACKENDS = ["cpu", "reference"]
UNIT_ROWS = AdamSettings(lr=1e-2, project=True, normalize=True)


class Stepped:
    """A parameter with its moments, stepped by the operation."""

    def __init__(
        self,
        param: Tensor,
        settings: AdamSettings,
        backend: str,
        state_dtype: torch.dtype | None = None,
        copy: torch.dtype | None = None,
    ) -> None:
        self.param = param.clone()
        self.exp_avg, self.exp_avg_sq = (
            torch.zeros_like(param, dtype=state_dtype) for _ in range(2)
        )
        self.count = torch.zeros(())
        self.settings, self.backend = settings, backend
        self.copy = None if copy is None else torch.empty_like(param, dtype=copy)

    def step(self, grad: Tensor) -> None:
        self.count += 1
        moments = self.exp_avg, self.exp_avg_sq
        adam_step_(
            self.param, grad, *moments, self.count, self.settings, self.copy, backend=self.backend
        )  # type: ignore[arg-type]


def torch_steps(param: Tensor, grads: list[Tensor], settings: AdamSettings) -> Tensor:
    """torch.optim with the projection before it and the norm after it."""
    p = param.clone().requires_grad_()
    optimizer = torch.optim.Adam(
        [p], lr=settings.lr, betas=settings.betas, eps=settings.eps,
        weight_decay=settings.weight_decay, decoupled_weight_decay=settings.decoupled_weight_decay,
    )  # fmt: skip
    for grad in grads:
        p.grad = grad.clone()
        with torch.no_grad():
            if settings.project:
                p.grad -= (grad * p).sum(dim=1, keepdim=True) / p.square().sum(1, True) * p
            optimizer.step()
            if settings.normalize:
                p /= p.norm(dim=1, keepdim=True)
    return p.detach()


def problem(N: int, D: int, steps: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Any]:
    generator = torch.Generator().manual_seed(N + D)
    param = F.normalize(torch.randn(N, D, generator=generator, dtype=dtype), dim=1)
    return param, [torch.randn(N, D, generator=generator, dtype=dtype) for _ in range(steps)]


SETTINGS = {
    "adam": AdamSettings(lr=1e-2),
    "unit rows": UNIT_ROWS,
    "clipped": UNIT_ROWS._replace(project=False),
    "decay": UNIT_ROWS._replace(weight_decay=0.1),
    "decoupled": UNIT_ROWS._replace(weight_decay=0.1, decoupled_weight_decay=True),
    "betas": UNIT_ROWS._replace(betas=(0.0, 0.5), eps=1e-3),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SETTINGS)
def test_it_equals_torch(name: str, backend: str, assert_close: Callable[..., None]) -> None:
    param, grads = problem(41, 77, 20)
    stepped = Stepped(param, SETTINGS[name], backend)
    for grad in grads:
        stepped.step(grad)
    assert_close("param", stepped.param, torch_steps(param, grads, SETTINGS[name]), 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(), (1,), (77,), (0, 5), (2, 3, 5)], ids=str)
def test_any_shape_without_rows(shape: tuple[int, ...], backend: str) -> None:
    torch.manual_seed(0)
    param, grads = torch.randn(shape), [torch.randn(shape) for _ in range(5)]
    stepped = Stepped(param, AdamSettings(lr=0.1), backend, copy=torch.bfloat16)
    for grad in grads:
        stepped.step(grad)
    torch.testing.assert_close(stepped.param, torch_steps(param, grads, stepped.settings))
    assert stepped.copy is not None
    assert torch.equal(stepped.copy, stepped.param.bfloat16())


def test_rows_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightsae_kernels.cpu.adam._BLOCK_ELEMENTS", 100)
    param, grads = problem(41, 7, 3)
    stepped = Stepped(param, UNIT_ROWS, "cpu")
    for grad in grads:
        stepped.step(grad)
    torch.testing.assert_close(stepped.param, torch_steps(param, grads, UNIT_ROWS))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_contiguous_is_stepped_all_the_same(backend: str) -> None:
    param, grads = problem(7, 5, 3)
    stepped = Stepped(param.t(), AdamSettings(), backend)
    for grad in grads:
        stepped.step(grad.t())
    expected = torch_steps(param, grads, stepped.settings)
    torch.testing.assert_close(stepped.param.t(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_is_only_read(backend: str) -> None:
    param, [grad] = problem(5, 7, 1)
    before = grad.clone()
    Stepped(param, UNIT_ROWS, backend).step(grad)
    assert torch.equal(grad, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_a_gradient_stay_bit_for_bit(backend: str) -> None:
    param, grads = problem(9, 77, 5, torch.float32)
    param[::2] *= 1 + 1e-6
    stepped = Stepped(param, UNIT_ROWS, backend, copy=torch.float16)
    for grad in grads:
        grad[::2] = 0
        stepped.step(grad)
    assert torch.equal(stepped.param[::2], param[::2])
    assert not stepped.exp_avg[::2].any()
    assert not stepped.exp_avg_sq[::2].any()
    assert stepped.copy is not None
    assert torch.equal(stepped.copy, stepped.param.half())
    norms = stepped.param[1::2].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(4))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_parameters_are_rounded_once_a_step(dtype: torch.dtype, backend: str) -> None:
    param, [grad] = problem(9, 77, 1)
    narrow = param.to(dtype)
    stepped = Stepped(narrow, UNIT_ROWS, backend, state_dtype=torch.float32)
    stepped.step(grad.to(dtype))
    exact = Stepped(narrow.double(), UNIT_ROWS, backend)
    exact.step(grad.to(dtype).double())
    error = (stepped.param.double() - exact.param).abs() / exact.param.abs()
    assert error.max() < 0.51 * torch.finfo(dtype).eps
    assert stepped.exp_avg.dtype == torch.float32


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_moments_round_what_is_kept_but_not_the_step(backend: str) -> None:
    param, grads = problem(9, 77, 2, torch.float32)
    narrow = Stepped(param, UNIT_ROWS, backend, state_dtype=torch.bfloat16)
    wide = Stepped(param, UNIT_ROWS, backend)
    for stepped in (narrow, wide):
        stepped.step(grads[0])
    torch.testing.assert_close(narrow.param, wide.param)
    assert torch.equal(narrow.exp_avg, wide.exp_avg.bfloat16())
    assert torch.equal(narrow.exp_avg_sq, wide.exp_avg_sq.bfloat16())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_along_the_row_moves_nothing(backend: str) -> None:
    param = torch.eye(3, 4) * 0.5
    stepped = Stepped(param, UNIT_ROWS, backend)
    stepped.step(-3 * param)
    assert torch.equal(stepped.param, param)


def arguments(**changed: Any) -> dict[str, Any]:
    t = torch.ones(3, 4)
    given = {"param": t, "grad": t, "exp_avg": t, "exp_avg_sq": t, "step": torch.ones(())}
    return {**given, "settings": AdamSettings(), **changed}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"grad": torch.ones(4, 3)}, r"grad must be param's \[3, 4\], got shape \(4, 3\)"),
        ({"exp_avg": torch.ones(3)}, r"exp_avg must be param's \[3, 4\], got shape \(3,\)"),
        ({"copy": torch.ones(3, 5)}, r"copy must be param's \[3, 4\], got shape \(3, 5\)"),
        ({"grad": torch.ones(3, 4).to_sparse()}, "grad must be dense and of floating point"),
        ({"exp_avg_sq": torch.ones(3, 4).int()}, "exp_avg_sq must be .* of floating point"),
        ({"grad": torch.ones(3, 4, device="meta")}, "grad is on meta but param is on cpu"),
        ({"step": torch.ones(2)}, r"step must be one float32 on cpu, got \(2,\)"),
        ({"step": torch.ones((), dtype=torch.int64)}, "step must be one float32 .* torch.int64"),
        ({"settings": AdamSettings(lr=-1.0)}, "lr must be at least 0 and finite, got -1.0"),
        ({"settings": AdamSettings(lr=torch.ones(2))}, r"lr must be one number, got shape \(2,\)"),
        ({"settings": AdamSettings(betas=(0.9, 1.0))}, r"betas must be two numbers in \[0, 1\)"),
        ({"settings": AdamSettings(eps=-1e-8)}, "eps must be above 0 and finite, got -1e-08"),
        ({"settings": AdamSettings(weight_decay=float("nan"))}, "weight_decay must be .*, got nan"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        adam_step_(**arguments(**changed))


@pytest.mark.parametrize("treatment", ["project", "normalize"])
def test_rows_need_a_matrix(treatment: str) -> None:
    t = torch.ones(4)
    settings = AdamSettings()._replace(**{treatment: True})
    with pytest.raises(ArgumentError, match=r"project and normalize need rows, got .* \(4,\)"):
        adam_step_(t, t, t, t, torch.ones(()), settings)


def eight_bit_steps(
    param: Tensor, grads: list[Tensor], settings: AdamSettings, backend: str,
    copy: torch.dtype | None = None,
) -> Stepped:  # fmt: skip
    """Steps whose moments are int8 and uint8 codes."""
    stepped = Stepped(param, settings, backend, copy=copy)
    codes = zip((param, param), (torch.int8, torch.uint8), strict=True)
    stepped.exp_avg, stepped.exp_avg_sq = (quantized_zeros(*one) for one in codes)  # type: ignore[assignment]
    for grad in grads:
        stepped.step(grad)
    return stepped


def rounded_steps(param: Tensor, grads: list[Tensor], settings: AdamSettings) -> Stepped:
    """Steps of the definition whose moments are rounded to 8 bits after each."""
    stepped = Stepped(param, settings, "reference")
    for grad in grads:
        stepped.step(grad)
        u = dither(stepped.count, range(len(param)), param.shape[1])
        for moment, dtype in ((stepped.exp_avg, torch.int8), (stepped.exp_avg_sq, torch.uint8)):
            target = quantized_zeros(moment, dtype)
            quantize_(target, moment, u)
            moment.copy_(dequantize(target, moment.dtype))
    return stepped


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["adam", "unit rows", "decoupled"])
def test_eight_bit_moments_round_what_is_kept_but_not_the_step(name: str, backend: str) -> None:
    param, grads = problem(21, 300, 5, torch.float32)
    found = eight_bit_steps(param, grads, SETTINGS[name], backend)
    expected = rounded_steps(param, grads, SETTINGS[name])
    assert isinstance(found.exp_avg, Quantized)
    for actual, wanted in (
        (found.param, expected.param), (dequantize(found.exp_avg), expected.exp_avg)
    ):  # fmt: skip
        # A number at the border of the dither may become either of two codes.
        apart = ~torch.isclose(actual, wanted, rtol=1e-4, atol=1e-6)
        assert apart.float().mean() < 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_a_gradient_keep_codes_of_0(backend: str) -> None:
    param, grads = problem(33, 77, 3, torch.float32)
    for grad in grads:
        grad[::2] = 0
    found = eight_bit_steps(param, grads, UNIT_ROWS, backend)
    assert torch.equal(found.param[::2], param[::2])
    assert not any(part[::2].any() for part in (*found.exp_avg, *found.exp_avg_sq))


SIGNED, UNSIGNED = (quantized_zeros(torch.ones(2, 3), kind) for kind in (torch.int8, torch.uint8))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (SIGNED, torch.zeros(2, 3), "must both be Quantized or neither"),
        (SIGNED, SIGNED, "exp_avg_sq must be torch.uint8 codes with float32 scales"),
        (SIGNED._replace(scales=torch.ones(2, 2)), UNSIGNED, r"scales of exp_avg must be \[2, 1\]"),
        (SIGNED._replace(codes=torch.ones(3, 2)), UNSIGNED, "codes of exp_avg must be param's"),
    ],
)
def test_codes_that_do_not_fit_are_refused(first: Any, second: Any, message: str) -> None:
    param = torch.ones(2, 3)
    with pytest.raises(ArgumentError, match=message):
        adam_step_(param, param, first, second, torch.ones(()), UNIT_ROWS)
