"""Losses and gradients of several autoencoders in batched products, without autograd (CPU).

The formulas are those of `lightsae_kernels.gradients`; what a member has of its own (a regularizer,
dead latents) is added member by member.

Shapes: x [B, D], W_enc and W_dec [S, N, D], a [S, B, N], values and indices [S * B, k]; rows and
latents of member s are numbered from s * B and s * N on.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from lightsae_kernels import Encoded
from lightsae_kernels.cpu import workspace
from lightsae_kernels.cpu.bf16_screen import pays
from lightsae_kernels.cpu.decode import decode_forward, values_gradient
from lightsae_kernels.cpu.select import select_topk
from lightsae_kernels.cpu.weight_gradients import LatentOrder, latent_sums, weight_gradient
from lightsae_kernels.encode_plan import EncodePlan
from lightsae_kernels.types import Decoder
from torch import Tensor

from lightsae.sae import AuxK, Objective, TopK
from lightsae.training.module import SAEModule
from lightsae.training.stacked.auxk_gradient import Encodings, add_aux_k
from lightsae.training.stacked.parameters import ParameterStack
from lightsae.training.stacked.penalty_gradient import has_joint_gradient, penalty_gradient_

# Activations of members that are worked on together stay in cache.
_TOGETHER_BYTES = 12 << 20
# Above this a member's activations are better made in the row blocks of the kernels.
_LARGEST_BYTES = 32 << 20


class _Block(NamedTuple):
    """Consecutive members of a stack and their part of its tensors."""

    places: range
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor


class _Selected(NamedTuple):
    """What the forward pass of a block finds.

    Attributes:
        centred: x - b_dec, [S, B, D].
        values: [S * B, k].
        indices: Latents within each member, [S * B, k].
        shifted: Latents within the block, [S * B, k].
        active: Batch-active latents, [S, N] bool.
        residual: x - x_hat, [S * B, D].
    """

    centred: Tensor
    values: Tensor
    indices: Tensor
    shifted: Tensor
    active: Tensor
    residual: Tensor


def can_join(module: SAEModule, x: Tensor) -> bool:
    """Whether batched products serve a member at a batch: Top-k on the CPU, not too large."""
    sae = module.sae
    if not has_joint_gradient(module.regularizer) or module.reconstruction is not None:
        return False
    if module.transcoder is not None or module.anchor is not None:
        return False
    if type(sae.selection) is not TopK or not x.is_cpu or torch.is_autocast_enabled("cpu"):
        return False
    if x.dtype not in (torch.float32, torch.float64) or x.dtype != sae.W_enc.dtype:
        return False
    if len(x) * sae.d_sae * x.element_size() > _LARGEST_BYTES or len(x) == 0:
        return False
    return not pays(x, sae.W_enc, EncodePlan(sae.selection.k, x.dtype))


class JointGradients:
    """Adds the gradients of every member of a stack at a batch to those of the stack.

    Args:
        stack: Members, first those that `can_join`; among these, first those without a regularizer.
        aux_k: Settings of the auxiliary loss, the same of all.
    """

    def __init__(self, stack: ParameterStack, aux_k: AuxK | None) -> None:
        self._stack, self._aux_k = stack, aux_k

    def add(self, x: Tensor, members: int, scale: float = 1.0) -> list[Objective]:
        """Losses of the first members of the stack.

        Args:
            x: Normalised inputs, [B, d_in].
            members: How many.
            scale: Factor of the gradients, 1 over the number of batches per step.
        """
        found: list[Objective] = []
        for block in self._blocks(x, members):
            found += self._add_block(block, x, scale)
        return found

    def _blocks(self, x: Tensor, members: int) -> Iterator[_Block]:
        of_one = len(x) * self._stack.values["b_enc"].shape[1] * x.element_size()
        size = max(1, _TOGETHER_BYTES // of_one)
        for first in range(0, members, size):
            part = slice(first, min(first + size, members))
            tensors = {name: value[part] for name, value in self._stack.values.items()}
            yield _Block(range(part.start, part.stop), **tensors)

    def _add_block(self, block: _Block, x: Tensor, scale: float) -> list[Objective]:
        (S, N, _), B = block.W_enc.shape, len(x)
        with workspace.borrowed((S, B, N), x.dtype) as a:
            selected = self._select(block, x, a)
            penalties, d_enc, d_b_enc, d_W_dec = self._backward(block, selected, a, scale)
        d_b_dec = selected.residual.view(S, B, -1).sum(dim=1).mul_(-2 * scale / B)
        d_b_dec -= torch.bmm(d_b_enc.unsqueeze(1), block.W_enc).squeeze(1)
        part = slice(block.places.start, block.places.stop)
        for name, gradient in (("W_enc", d_enc), ("b_enc", d_b_enc), ("W_dec", d_W_dec),
                               ("b_dec", d_b_dec)):  # fmt: skip
            self._stack.gradients[name][part] += gradient
        auxiliary = self._auxiliary(block, selected, scale)
        return self._objectives(block, selected, penalties, auxiliary)

    def _select(self, block: _Block, x: Tensor, a: Tensor) -> _Selected:
        """Encode, select, count who fired, and decode."""
        (S, N, D), B = block.W_enc.shape, len(x)
        k = self._stack.modules[0].selection.k
        centred = x - block.b_dec.unsqueeze(1)
        torch.baddbmm(block.b_enc.unsqueeze(1), centred, block.W_enc.mT, out=a)
        values, indices = select_topk(a.view(S * B, N), k)
        shifted = (indices.view(S, B * k) + torch.arange(0, S * N, N).unsqueeze(1)).view(S * B, k)
        active = torch.zeros(S * N, dtype=torch.uint8)
        active[shifted.view(-1)] = 1
        self._count(block, values, shifted, B)
        decoder = Decoder(block.W_dec.view(S * N, D), None, x.dtype)
        residual = centred.view(S * B, D) - decode_forward(values, shifted, decoder)
        return _Selected(centred, values, indices, shifted, active.view(S, N).bool(), residual)

    def _count(self, block: _Block, values: Tensor, shifted: Tensor, rows: int) -> None:
        """As `DeadLatentTracker.update` does."""
        counters = self._stack.tokens_since_fired[block.places.start : block.places.stop]
        counters += rows
        above = (AuxK() if self._aux_k is None else self._aux_k).fired_above
        counters.view(-1)[shifted.view(-1)[(values > above).view(-1)]] = 0

    def _backward(
        self, block: _Block, selected: _Selected, a: Tensor, scale: float
    ) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Penalties and the gradients of W_enc, b_enc and W_dec; uses up the activations."""
        centred, values, indices, shifted, active, residual = selected
        (S, N, D), B, k = block.W_enc.shape, a.shape[1], values.shape[1]
        decoder = Decoder(block.W_dec.view(S * N, D), None, values.dtype)
        factor = -2 * scale / B
        coefficient = values_gradient(residual, shifted, decoder).mul_(factor).mul_(values > 0)
        order = _latent_order(indices, shifted, S, N)
        d_W_dec = weight_gradient(order, values * factor, residual).view(S, N, D)
        d_W_enc, d_b_enc = torch.empty_like(block.W_enc), torch.empty_like(block.b_enc)
        modules = [self._stack.modules[place] for place in block.places]
        plain = next((i for i, m in enumerate(modules) if m.regularizer is not None), S)
        if plain:
            pairs, rows = plain * B * k, slice(0, plain * B)
            of_plain = LatentOrder(
                order.permutation[:pairs], order.sample[:pairs], order.offsets[: plain * N]
            )
            flat = centred.view(S * B, D)[rows]
            d_W_enc[:plain] = weight_gradient(of_plain, coefficient[rows], flat).view(plain, N, D)
            d_b_enc[:plain] = latent_sums(shifted[rows], coefficient[rows], plain * N).view(-1, N)
        penalties = [values.new_zeros(())] * plain
        for i in range(plain, S):
            rows, regularizer = slice(i * B, (i + 1) * B), modules[i].regularizer
            assert regularizer is not None
            penalty, d_b_enc[i] = penalty_gradient_(
                a[i], indices[rows], active[i], coefficient[rows], regularizer, scale
            )
            penalties.append(penalty)
            torch.mm(a[i].t(), centred[i], out=d_W_enc[i])
        return penalties, d_W_enc, d_b_enc, d_W_dec

    def _auxiliary(self, block: _Block, selected: _Selected, scale: float) -> list[Tensor]:
        """AuxK of every member, its gradients added to those of the stack."""
        S, B, D = selected.centred.shape
        none = selected.values.new_zeros(())
        if self._aux_k is None:
            return [none] * S
        since = self._stack.tokens_since_fired[block.places.start : block.places.stop]
        dead = since >= self._stack.modules[0].dead_after
        some = dead.any(dim=1).tolist()
        residuals = selected.residual.view(S, B, D)
        gradients = self._stack.gradients
        return [
            add_aux_k(
                Encodings(block.W_enc[i], block.b_enc[i], block.W_dec[i]),
                selected.centred[i], residuals[i], dead[i].nonzero().squeeze(1), self._aux_k,
                {name: gradients[name][block.places[i]] for name in gradients}, scale,
            )
            if some[i] else none
            for i in range(S)
        ]  # fmt: skip

    def _objectives(
        self, block: _Block, found: _Selected, penalties: Sequence[Tensor], aux: Sequence[Tensor]
    ) -> list[Objective]:
        """Losses and their parts, member by member."""
        S, B, D = found.centred.shape
        alpha = 0.0 if self._aux_k is None else self._aux_k.weight
        reconstructions = found.residual.square().view(S, B * D).sum(dim=1).div_(B)
        parts = zip(
            reconstructions, aux, penalties, found.values.view(S, B, -1),
            found.indices.view(S, B, -1), found.active, found.residual.view(S, B, D), strict=True,
        )  # fmt: skip
        objectives = []
        for place, part in zip(block.places, parts, strict=True):
            reconstruction, auxiliary, penalty, values, indices, active, residual = part
            regularizer = self._stack.modules[place].regularizer
            weight = 0.0 if regularizer is None else regularizer.weight
            loss = reconstruction + alpha * auxiliary + weight * penalty
            encoded = Encoded(values, indices, penalty, active)
            objectives.append(
                Objective(loss, reconstruction, auxiliary, penalty, encoded, residual)
            )
        return objectives


def _latent_order(indices: Tensor, shifted: Tensor, S: int, N: int) -> LatentOrder:
    """The pairs of all members by latent: each member's are sorted among themselves."""
    pairs, k = indices.numel() // S, indices.shape[1]
    narrow = indices.view(S, pairs).to(torch.int16 if N <= 1 << 15 else torch.int32)
    permutation = narrow.sort(dim=1, stable=True).indices
    permutation += torch.arange(0, S * pairs, pairs).unsqueeze(1)
    permutation = permutation.view(-1)
    counts = torch.bincount(shifted.view(-1), minlength=S * N)
    return LatentOrder(permutation, permutation // k, counts.cumsum(0) - counts)
