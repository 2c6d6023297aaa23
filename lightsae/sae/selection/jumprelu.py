"""JumpReLU: a learned threshold for every latent (arXiv 2407.14435), driven to an L0.

    z = pre-activation        value = z where z > theta, else 0        L0 = number of z > theta
    d value / d theta = -(theta / eps) K((z - theta) / eps)    d L0 / d theta = -1/eps K(...)

with the rectangle K(u) = 1 for |u| < 1/2: straight-through, from what lies near the threshold.
"""

import math
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from lightsae_kernels import Encoded, EncodeOptions, encode_topk, reference
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from lightsae.errors import LightsaeError
from lightsae.sae.regularizers import Regularizer
from lightsae.sae.selection.batch_topk import BatchTopK
from lightsae.sae.selection.fused_selection import (
    Batch,
    Selection,
    positive,
    with_dense_penalty,
)
from lightsae.sae.selection.threshold import Threshold, encode_above


class SparseEncoded(Encoded):
    """A code and a loss of the rule's own.

    Attributes:
        sparsity: What the rule adds to the loss, a scalar.
    """

    sparsity: Tensor

    @classmethod
    def of(cls, encoded: Encoded, sparsity: Tensor) -> "SparseEncoded":
        """A code with a loss."""
        found = cls(*encoded)
        found.sparsity = sparsity
        return found


class JumpReLU(nn.Module, Selection):
    """Keep activations above a threshold that each latent learns; k of a row on average.

    The thresholds begin where the first training batch has k active latents a row. From then on
    they follow the reconstruction and a loss lambda L0 / k, where lambda is the multiplier of the
    constraint L0 = k: a controller raises it while L0 is above k and lowers it, below 0 if need be,
    while L0 is under, so that nobody tunes it. What the last batch was off by is also corrected at
    once, by a step of all thresholds of latents that fired, or of all downwards; and thresholds of
    latents that did not fire sink slowly until they do.

    Gradients are sparse: of activations above, or within half a bandwidth of, their threshold.
    A regularizer is evaluated densely, [B, d_sae].

    Args:
        k: L0 to be reached.
        bandwidth: Width eps of the rectangle in units of the initial threshold.
        controller_rate: How fast lambda follows the relative excess of L0, a step.

    Attributes:
        threshold: theta, float32, [d_sae]; what is below 0 counts as 0.
        eps: Width of the rectangle in units of activations, scalar buffer; 0 before training.
        multiplier: lambda, scalar buffer.
        excess: L0 / k - 1 of the last batch over all ranks, between -1 and 1, scalar buffer.
        fired: Latents that were active in that batch, [d_sae] bool buffer.

    Raises:
        LightsaeError: If k is not an integer or smaller than 1, or a number is not positive.

    Example:
        >>> rule = JumpReLU(k=1)
        >>> rule.build(3)
        >>> encoder = torch.eye(3), torch.zeros(3), torch.zeros(3)
        >>> x = torch.tensor([[1.0, 5.0, 3.0], [0.5, 0.0, 0.1]])
        >>> (rule.encode(x, encoder).values > 0).sum().item(), rule.threshold[0].item() < 3
        (2, True)
    """

    threshold: nn.Parameter
    eps: Tensor
    multiplier: Tensor
    excess: Tensor
    fired: Tensor

    def __init__(self, k: int, bandwidth: float = 0.5, controller_rate: float = 0.01) -> None:
        super().__init__()
        self.k = positive("k", k)
        for name, given in (("bandwidth", bandwidth), ("controller_rate", controller_rate)):
            if not 0 < given < math.inf:
                raise LightsaeError(f"{name} must be positive and finite, got {given}")
        self.bandwidth, self.controller_rate = bandwidth, controller_rate
        self.register_buffer("eps", torch.tensor(0.0))
        self.register_buffer("multiplier", torch.tensor(0.0))
        self.register_buffer("excess", torch.tensor(0.0))

    def build(self, d_sae: int) -> None:
        """Make the thresholds, all 0."""
        self.threshold = nn.Parameter(torch.zeros(d_sae, dtype=torch.float32))
        self.register_buffer("fired", torch.ones(d_sae, dtype=torch.bool))

    def settings(self) -> dict[str, Any]:
        """Arguments that build the same rule again."""
        return {
            "k": self.k,
            "bandwidth": self.bandwidth,
            "controller_rate": self.controller_rate,
        }

    def learned(self) -> dict[str, Tensor]:
        """The mean threshold and the multiplier."""
        return {"threshold": self.threshold.mean(), "multiplier": self.multiplier}

    def inference(self) -> Selection:
        """The thresholds as a rule without a loss."""
        return Threshold(self.k, self.threshold)

    def encode(
        self,
        x: Tensor,
        encoder: tuple[Tensor, Tensor, Tensor],
        *,
        k: int | None = None,
        regularizer: Regularizer | None = None,
        process_group: ProcessGroup | None = None,
    ) -> Encoded:
        """Encode a batch for training; see `FusedSelection.encode`."""
        if k is not None:
            return self.inference().encode(
                x, encoder, k=k, regularizer=regularizer, process_group=process_group
            )
        learns = self.training and torch.is_grad_enabled()
        theta, multiplier = self._of_batch(x, encoder, process_group, learns=learns)
        lowest = (theta.detach() - self.eps / 2).clamp_min(0)
        near = encode_above(x, encoder, lowest, 2 * self.k)
        own = theta[near.indices]
        values = _Jump.apply(near.values, own, self.eps)
        on = values.detach() > 0
        active = reference.batch_active_mask(near.indices, len(theta), process_group, on)
        code = near._replace(values=values, batch_active=active, used=on)
        if regularizer is not None:
            code = with_dense_penalty(code, x, encoder, regularizer)
        # Decoding passes gradients on to what is just off, too: thresholds learn from it.
        code = code._replace(used=near.used)
        l0 = _Step.apply(near.values, own, self.eps).sum() / max(len(x), 1)
        sparsity = multiplier.to(l0) * l0 / self.k
        if learns:
            self._follow(l0.detach(), len(x), code.batch_active, process_group)
        return SparseEncoded.of(code, sparsity)

    @torch.compiler.disable
    def _of_batch(
        self, x: Tensor, encoder: tuple[Tensor, Tensor, Tensor], group: ProcessGroup | None, *,
        learns: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Thresholds and lambda, copies: the next batch may move them before this one's gradient.

        In a graph a copy would be made again from what has moved.
        """
        if self.eps == 0:
            self._begin(x, encoder, group)
        elif learns:
            self._correct()
        return self.threshold.clone().clamp_min(0), self.multiplier.clone()

    @torch.no_grad()
    def _begin(
        self, x: Tensor, encoder: tuple[Tensor, Tensor, Tensor], group: ProcessGroup | None
    ) -> None:
        """Thresholds with k active latents a row in this batch, unless there are some already."""
        if not (self.threshold > 0).any():
            operation = partial(encode_topk, x, *encoder)
            options: EncodeOptions = {"process_group": group}
            _, largest = BatchTopK(self.k).select(operation, Batch(x, encoder), options)
            if largest.threshold.isinf():
                return
            # The smallest activation that is to stay must exceed it.
            self.threshold.fill_(float(largest.threshold) * (1 - 1e-6))
        self.eps.fill_(self.bandwidth * float(self.threshold.clamp_min(0).mean()))

    @torch.no_grad()
    def _correct(self) -> None:
        """Move thresholds against the excess of the last batch.

        Gradients move them by a learning rate a step, far slower than activations change as
        training begins. Once lambda fits there is hardly any excess left.
        """
        moved = self.fired | (self.excess < 0)
        self.threshold.add_(_CORRECTION * self.excess * self.eps * moved)
        self.threshold.mul_(torch.where(self.fired, 1.0, 1.0 - _SINKING))

    @torch.compiler.disable
    @torch.no_grad()
    def _follow(self, l0: Tensor, rows: int, active: Tensor, group: ProcessGroup | None) -> None:
        """Move lambda by the excess of a batch over all ranks; one without rows says nothing."""
        counts = torch.stack([l0.double() * rows, l0.new_tensor(rows, dtype=torch.float64)])
        if group is not None:
            dist.all_reduce(counts, group=group)
        there = counts[1] > 0
        excess = (counts[0] / counts[1].clamp_min(1) / self.k - 1).clamp(-1, 1)
        self.excess.copy_(excess * there)
        self.multiplier += self.controller_rate * self.excess
        self.fired.copy_(active | ~there)

    def _apply(self, fn: Any, recurse: bool = True) -> "JumpReLU":
        """Move; thresholds and what belongs to them stay in float32."""
        before = {name: tensor.detach() for name, tensor in self.state_dict().items()}
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            moved = getattr(self, name)
            if moved.dtype not in (torch.float32, torch.bool):
                moved.data = moved.data.float() if moved.is_meta else tensor.to(moved.device)
        if self.threshold.grad is not None:
            self.threshold.grad = self.threshold.grad.float()
        return self


# In units of eps: what one batch corrects thresholds by at an L0 of twice k.
_CORRECTION = 0.1
# Share of its threshold that a silent latent loses with a batch: nothing else would bring it back.
_SINKING = 0.003


class _Jump(torch.autograd.Function):
    """z where it exceeds its threshold."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, eps: Tensor) -> Tensor:
        """The values."""
        ctx.save_for_backward(z, theta, eps)
        return torch.where(z > theta, z, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradient where a value is, and of thresholds near which one is."""
        z, theta, eps = ctx.saved_tensors
        of_theta = -(theta / eps) * _near(z, theta, eps) * grad
        return grad * (z > theta), of_theta.to(theta.dtype), None


class _Step(torch.autograd.Function):
    """1 where z exceeds its threshold."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, eps: Tensor) -> Tensor:
        """The indicator, at least in float32."""
        ctx.save_for_backward(z, theta, eps)
        return (z > theta).to(torch.promote_types(z.dtype, theta.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        """The gradient of thresholds near which an activation is."""
        z, theta, eps = ctx.saved_tensors
        return None, (-grad / eps * _near(z, theta, eps)).to(theta.dtype), None


def _near(z: Tensor, theta: Tensor, eps: Tensor) -> Tensor:
    """Activations within half a bandwidth of their threshold; what is off is not near."""
    return (z > 0) & ((z - theta).abs() < eps / 2)
