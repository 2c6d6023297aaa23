"""Latents held near the directions of a vocabulary (VASAE, arXiv 2606.27941)."""

import math
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae.losses.anchor_function import AnchorFunction, Reduction
from lightsae.sae.losses.vocabulary_file import (
    Directions,
    read_directions,
    require_directions,
    unit_vectors,
)
from lightsae.sae.weight_warmup import WarmedUpWeight

# Latents and vectors of a block of cosines: 16 MiB of float32.
_CHUNK = 2048


class Anchored(NamedTuple):
    """How near the latents of a dictionary are to a vocabulary.

    Attributes:
        value: Mean over latents by the reduction, a scalar.
        nearest: mean_i max_j cos(d_i, e_j), the same where the reduction is "max"; no gradient.
    """

    value: Tensor
    nearest: Tensor


def vocabulary_anchor(
    W_dec: Tensor,
    vectors: Tensor,
    reduction: Reduction = "max",
    temperature: float = 0.05,
    chunk: int = _CHUNK,
) -> Tensor:
    """Mean over latents of how near each is to a vocabulary, at most 1.

    With c_ij = cos(d_i, e_j) a latent counts

    - max: max_j c_ij (arXiv 2606.27941); of equals the first has the gradient;
    - logsumexp: T log(1/V sum_j exp(c_ij / T)) (ours), between max - T log V and max;
    - softmax: sum_j p_ij c_ij with p_i = softmax(c_i / T) (ours), at most the max.

    The last two reach every vector, and come to the max as T goes to 0. A latent that is zero has
    no direction: it counts 0 and has no gradient. Cosines are made in blocks, in float32 at least
    and under autocast too, and made again in the backward pass; [d_sae, V] is never held. Gradients
    are of first order, and of W_dec alone.

    Args:
        W_dec: Decoder rows of any norm [d_sae, d], any floating dtype.
        vectors: The vocabulary [V, d], any norm; float64, float32, bfloat16 or float16.
        reduction: "max", "logsumexp" or "softmax".
        temperature: T, in units of cosine; "max" does not use it.
        chunk: Latents, and vectors, of a block.

    Returns:
        A scalar, at least float32.

    Raises:
        LightsaeError: If widths differ, a vector is zero or not finite, or a setting is not one.

    Example:
        >>> import torch
        >>> W_dec = torch.tensor([[2.0, 0.0], [0.0, -1.0]])
        >>> vocabulary_anchor(W_dec, torch.tensor([[3.0, 4.0], [0.0, 5.0]]))
        tensor(-0.1000)
    """
    _require_settings(reduction, temperature)
    if chunk < 1:
        raise LightsaeError(f"chunk must be at least 1, got {chunk}")
    require_directions(vectors, "vocabulary")
    _require_width(vectors, W_dec.shape[1], "vocabulary")
    unit = unit_vectors(vectors.detach(), torch.promote_types(W_dec.dtype, torch.float32))
    return _anchored(W_dec, unit.to(W_dec.device), reduction, temperature, chunk).value


class VocabularyAnchor(WarmedUpWeight):
    """Adds -lambda mean_i max_j cos(d_i, e_j) to the loss (arXiv 2606.27941).

    e are the frozen directions of a vocabulary, such as token embeddings of the model whose
    activations are encoded, or text embeddings of concepts from the same joint space. d_i are
    decoder rows: of width d_in, or d_out of a `Transcoder`. An input scale, of all or by row, does
    not turn them; after "layer_norm" they are directions among rows that are centred, and so the
    vocabulary should be.

    It depends on weights alone, and costs 2 V d_sae d operations (6 by the soft reductions) where
    the encoder's product costs 2 B d_sae d: computed at every `every`-th optimizer step, it counts
    `every`-fold there, so that lambda is the same on average. Of several micro-batches of a step
    each computes it; so does each rank. Validation leaves it out of the loss.

    Args:
        weight: lambda. The paper has 1e-4 for a loss on another scale; choose it by a sweep.
        vocabulary: A safetensors file with `vectors` [V, d], which training reads; or the matrix.
        every: Optimizer steps from one at which it is computed to the next.
        reduction: "max" of the paper, or "logsumexp" or "softmax"; see `vocabulary_anchor`.
        temperature: Of the latter two, in units of cosine.
        weight_warmup: Optimizer steps over which lambda rises linearly from 0.

    Attributes:
        vocabulary: The file's path; None where the matrix was given.

    Raises:
        LightsaeError: If a setting is out of range, or a vector of the matrix zero or not finite.

    Example:
        >>> import torch
        >>> anchor = VocabularyAnchor(0.1, torch.eye(2), every=4)
        >>> anchor.nearness(torch.tensor([[3.0, 4.0]])).value
        tensor(0.8000)
        >>> [anchor.weight_of_step(step) for step in range(5)]
        [None, None, None, 0.4, None]
    """

    def __init__(
        self,
        weight: float,
        vocabulary: str | Path | Tensor,
        every: int = 1,
        reduction: Reduction = "max",
        temperature: float = 0.05,
        weight_warmup: int = 0,
    ) -> None:
        self._set_weight(weight, weight_warmup)
        if every < 1:
            raise LightsaeError(f"every must be at least 1 step, got {every}")
        _require_settings(reduction, temperature)
        self.every, self.reduction, self.temperature = every, reduction, temperature
        self.vocabulary = None if isinstance(vocabulary, Tensor) else str(vocabulary)
        self._directions: Directions | None = None
        if isinstance(vocabulary, Tensor):
            # Embeddings of a model that goes on training would change.
            self._directions = Directions(vocabulary.detach().clone())

    @property
    def vectors(self) -> Tensor:
        """The vocabulary [V, d], read when it is first asked for.

        Raises:
            LightsaeError: If there is no such file or it holds no such vectors.
        """
        return self._read().vectors

    @property
    def digest(self) -> str | None:
        """What tells the vocabulary from others; None while the file is not read."""
        return None if self._directions is None else self._directions.digest

    def read_digest(self) -> str:
        """The digest, once the vocabulary is read.

        Raises:
            LightsaeError: As `vectors`.
        """
        return self._read().digest

    def _read(self) -> Directions:
        if self._directions is None:
            assert self.vocabulary is not None
            self._directions = read_directions(self.vocabulary)
        return self._directions

    def settings(self) -> dict[str, Any]:
        """What a checkpoint keeps of it; a matrix is null, its digest stands beside it."""
        names = ("weight", "vocabulary", "every", "reduction", "temperature", "weight_warmup")
        return {name: getattr(self, name) for name in names}

    def weight_of_step(self, step: int) -> float | None:
        """Lambda times `every` at an optimizer step, counted from 0; None where it is left out."""
        return None if (step + 1) % self.every else self.weight_at(step) * self.every

    def require_width(self, width: int) -> None:
        """Refuse a vocabulary of another width than the decoder's.

        Raises:
            LightsaeError: Naming both.
        """
        _require_width(self.vectors, width, self.vocabulary or "vocabulary")

    def nearness(self, W_dec: Tensor) -> Anchored:
        """How near decoder rows [d_sae, d] are to the vocabulary."""
        self.require_width(W_dec.shape[1])
        unit = self._read().unit_like(W_dec)
        return _anchored(W_dec, unit, self.reduction, self.temperature, _CHUNK)

    def __deepcopy__(self, memo: Any) -> "VocabularyAnchor":
        """Itself: copies of a module, as averages of weights keep one, share the vocabulary."""
        return self


def _anchored(
    W_dec: Tensor, unit: Tensor, reduction: Reduction, temperature: float, chunk: int
) -> Anchored:
    return Anchored(*AnchorFunction.apply(W_dec, unit, reduction, temperature, chunk))


def _require_settings(reduction: str, temperature: float) -> None:
    if reduction not in get_args(Reduction):
        raise LightsaeError(f"reduction is {reduction!r}, expected one of {get_args(Reduction)}")
    if not 0 < temperature < math.inf:
        raise LightsaeError(f"temperature must be positive and finite, got {temperature}")


def _require_width(vectors: Tensor, width: int, what: str) -> None:
    if vectors.shape[1] != width:
        raise LightsaeError(
            f"{what}: its vectors have width {vectors.shape[1]}, decoder rows have {width}"
        )
