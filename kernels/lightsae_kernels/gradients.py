"""Gradients of every operation, once: eager calls and custom operators both come here.

The products are the backend's; what is multiplied with what stands here. With g, the gradient of
the reconstructions x_hat:

    d_values[i, s] = g_i . W_dec[indices[i, s]]
    d_W_dec[j] = sum of values[i, s] g_i over the pairs (i, s) of latent j      d_b_dec = sum_i g_i
    through the encoder: d_b_dec = -(d_b_enc W_enc), every row of x - b_dec counts against it
"""

from collections.abc import Callable, Sequence
from functools import wraps
from types import ModuleType
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from lightsae_kernels.encode_plan import EncodePlan
from lightsae_kernels.types import Decoder, DecoderPairs, EncodeGradients, Encoder, Encoding

F = TypeVar("F", bound=Callable[..., Any])
Order = Callable[[], Any]


class Upstream(NamedTuple):
    """Gradient of the reconstructions.

    Attributes:
        g: [B, d_in].
        rows: What its rows are to be multiplied with, [B], or None.
        narrow: `g` in the dtype that the products take it in, where it is there.
    """

    g: Tensor
    rows: Tensor | None = None
    narrow: Tensor | None = None

    @classmethod
    def of(
        cls, residual: Tensor, narrow: Tensor | None, d_residual: Tensor | None,
        d_error: Tensor | None,
    ) -> "Upstream":  # fmt: skip
        """From the gradients of the residual and of its squared norms."""
        if d_residual is None and d_error is not None:
            # The gradient is the residual, scaled by row: it is never written.
            return cls(residual, -2 * d_error, narrow)
        g = torch.zeros_like(residual) if d_residual is None else -d_residual
        if d_error is not None:
            g = g - 2 * d_error[:, None] * residual
        return cls(g)

    @property
    def factor(self) -> Tensor:
        """What is multiplied, [B, d_in]."""
        return self.g if self.narrow is None else self.narrow

    def by_row(self, t: Tensor) -> Tensor:
        """Scale the rows of a tensor [B, ...]."""
        return t if self.rows is None else t * self.rows[:, None]

    def sum(self) -> Tensor:
        """Over the samples, [d_in]."""
        return self.g.sum(dim=0) if self.rows is None else self.rows @ self.g


def decode_gradients(
    backend: ModuleType, upstream: Upstream, values: Tensor, indices: Tensor, decoder: Decoder,
    order: Order, needed: Sequence[bool], used: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of values and W_dec; `needed` says which of them are."""
    d_values = d_W_dec = None
    if needed[0]:
        through = backend.values_gradient(upstream.factor, indices, decoder, used)
        d_values = upstream.by_row(through)
    if needed[1]:
        pairs = DecoderPairs(upstream.by_row(values), upstream.factor)
        d_W_dec = backend.decoder_gradient(order(), pairs)
    return d_values, d_W_dec


def encode_gradients(
    backend: ModuleType, x: Tensor, encoder: Encoder, found: Encoding, plan: EncodePlan,
    order: Order, d_values: Tensor | None, d_penalty: Tensor | None, needed: Sequence[bool],
    pairs: DecoderPairs | None = None,
) -> tuple[EncodeGradients, Tensor | None]:  # fmt: skip
    """Gradients of an encoding of centred inputs x, and that of b_dec through it."""
    d_values = candidates_gradient(found, plan, d_values, d_penalty)
    d: EncodeGradients = backend.encode_backward(
        x, encoder, found, plan, order, d_values, d_penalty, needed, pairs
    )
    return d, -(d.b_enc @ encoder.W.to(d.b_enc.dtype)) if needed[3] else None


def candidates_gradient(
    found: Encoding, plan: EncodePlan, d_values: Tensor | None, d_penalty: Tensor | None
) -> Tensor | None:
    """Gradient of the activations of all candidates, given that of the selected ones, [B, k].

    A backend counts what is no candidate as off the support; so are candidates that are not used.
    """
    if found.used is None:
        return d_values
    d = torch.zeros_like(found.values) if d_values is None else d_values * found.used
    if plan.regularizer != "off_support_l1" or d_penalty is None:
        return d
    return d + unused_and_counted(found, plan) * (d_penalty / max(len(d), 1))


def unused_and_counted(found: Encoding, plan: EncodePlan) -> Tensor:
    """Candidates that are not used and that a regularizer counts, [B, k] bool."""
    assert found.used is not None
    mask = plan.mask(found.active)
    return ~found.used if mask is None else ~found.used & mask[found.indices]


def encode_residual_gradients(
    backend: ModuleType, x: Tensor, encoder: Encoder, decoder: Decoder, found: Encoding,
    plan: EncodePlan, order: Order, upstream: Upstream, d_values: Tensor | None,
    d_penalty: Tensor | None, needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of x, W_enc, b_enc, W_dec and b_dec of an encoding and the residual it leaves."""
    through = backend.values_gradient(upstream.factor, found.indices, decoder, found.used)
    through = upstream.by_row(through)
    through = through if d_values is None else through + d_values
    pairs = DecoderPairs(upstream.by_row(found.code), upstream.factor)
    of_x, of_W_enc, of_b_enc, _, of_b_dec = needed
    d, d_b_dec = encode_gradients(
        backend, x, encoder, found, plan, order, through, d_penalty,
        (of_x, of_W_enc, of_b_enc, of_b_dec), pairs,
    )  # fmt: skip
    d_x = None if d.x is None else d.x - upstream.by_row(upstream.g)
    d_b_dec = None if d_b_dec is None else d_b_dec + upstream.sum()
    return d_x, d.W_enc, d.b_enc, d.W_dec, d_b_dec


def outside_autocast(method: F) -> F:
    """Let a method of an autograd function compute in the dtypes of its tensors, wherever."""

    @wraps(method)
    def run(ctx: Any, *arguments: Any) -> Any:
        device = next((t.device.type for t in arguments if isinstance(t, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return method(ctx, *arguments)

    return cast("F", run)


class PairOrder:
    """The pairs (sample, latent) of one code by latent, sorted when a gradient first asks for them.

    Given to an encoding and to the decode of its code, it spares the second backward pass the
    sort. Pairs of other indices are sorted anew.

    Example:
        >>> from lightsae_kernels import encode_topk, sparse_decode
        >>> W, order = torch.eye(4, 2).requires_grad_(), PairOrder()
        >>> code = encode_topk(torch.ones(1, 2), W, torch.zeros(4), torch.zeros(2), 1, order=order)
        >>> sparse_decode(code.values, code.indices, W, order=order).sum().backward()
    """

    def __init__(self) -> None:
        self._made: Any = None
        self._key: tuple[object, ...] | None = None
        self._held: tuple[Tensor, Tensor | None] | None = None

    def of(
        self, indices: Tensor, d_sae: int, sort: Callable[..., Any], used: Tensor | None = None
    ) -> Any:
        """The order of indices [B, k], as `sort` makes it, of all places or of those used."""
        key = (_identity(indices), d_sae, sort, None if used is None else _identity(used))
        if key != self._key:
            made = sort(indices, d_sae) if used is None else sort(indices, d_sae, used=used)
            # While the tensors are held here, no others get their addresses.
            self._made, self._key, self._held = made, key, (indices, used)
        return self._made


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """The same of the same elements in the same memory, unchanged since."""
    return tensor.data_ptr(), tensor._version, tensor.shape, tensor.stride()
