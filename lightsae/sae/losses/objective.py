"""The training loss: reconstruction + alpha AuxK + lambda R (arXiv 2606.27321), and an anchor."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from lightsae_kernels import Encoded
from torch import Tensor
from torch.distributed import ProcessGroup

from lightsae.errors import LightsaeError
from lightsae.sae.autoencoder import SparseAutoencoder
from lightsae.sae.losses.auxk import AuxK, aux_k_loss
from lightsae.sae.losses.reconstruction import Reconstructed, Reconstruction
from lightsae.sae.losses.vocabulary_anchor import VocabularyAnchor
from lightsae.sae.regularizers import CodeRegularizer, Regularizer
from lightsae.sae.transcoder import Transcoder


class Objective(NamedTuple):
    """The loss of a batch and its parts, unweighted.

    Attributes:
        loss: reconstruction + alpha aux_k + lambda penalty + sparsity - lambda' anchor.
        reconstruction: Mean over samples of ||x - x_hat||^2 of normalised inputs, at least float32;
            of a `Transcoder` of its targets; of a `Reconstruction` what that makes of it.
        aux_k: See `lightsae.sae.aux_k_loss`; 0 without AuxK.
        penalty: The regularizer; 0 without one.
        encoded: The code, with the batch-active mask.
        residual: x - x_hat of normalised inputs, at least float32, [B, d_in]; of a `Transcoder`
            that of its targets, [B, d_out].
        sparsity: What a selection rule with a loss of its own adds, weighted; None of others.
        anchor: How near the latents are to a vocabulary, by the anchor's reduction; None without.
        nearest_cosine: mean_i max_j cos(d_i, e_j) of that vocabulary; None without an anchor.
    """

    loss: Tensor
    reconstruction: Tensor
    aux_k: Tensor
    penalty: Tensor
    encoded: Encoded
    residual: Tensor
    sparsity: Tensor | None = None
    anchor: Tensor | None = None
    nearest_cosine: Tensor | None = None

    def weighted(self, weight: float | Tensor) -> "Objective":
        """The loss and its parts times a weight, for ranks that have unequally many samples.

        How near the latents are is no mean over samples, and stays as it is.
        """
        if isinstance(weight, float) and weight == 1:
            return self
        parts = {
            name: part * torch.as_tensor(weight).to(part)
            for name, part in self._asdict().items()
            if part is not None and name not in _OF_NO_RANK
        }
        return self._replace(**parts)


# No means over this rank's samples.
_OF_NO_RANK = ("encoded", "residual", "anchor", "nearest_cosine")


def objective(
    sae: SparseAutoencoder,
    x: Tensor,
    targets: Tensor | None = None,
    *,
    regularizer: Regularizer | None = None,
    aux_k: AuxK | None = None,
    dead: Callable[[Encoded], Tensor] | None = None,
    process_group: ProcessGroup | None = None,
    embeddings: Tensor | None = None,
    regularizer_weight: float | Tensor | None = None,
    reconstruction: Reconstruction | None = None,
    anchor: VocabularyAnchor | None = None,
    anchor_weight: float | None = None,
) -> Objective:
    """Encode, decode and evaluate every part of the loss.

    Every part is in the space of normalised inputs. Where a single scale divides them, losses and
    gradients are those of raw space times a constant. By row (layer_norm, unit_norm), each row's
    error counts relative to the row's own size.

    Means are over the samples of this rank; averaged over ranks with equally many samples they are
    the loss of the whole batch, and so are their gradients. Otherwise each rank's parts are to be
    `weighted` by its samples over the mean of all ranks'.

    Args:
        sae: The autoencoder.
        x: Normalised inputs, `sae.normalize(...).x`, [B, d_in].
        targets: Normalised targets of a `Transcoder`, `sae.normalize_targets(...)`, [B, d_out].
        regularizer: Penalty on the activations before selection, or on the code.
        aux_k: Settings of the auxiliary loss; needs `dead`.
        dead: Called with the code; returns the dead latents, [d_sae] bool.
        process_group: Ranks that share the batch.
        embeddings: Embedding of each sample [B, d_e] for a `CodeRegularizer`; x if left out.
        regularizer_weight: lambda in place of the regularizer's `weight`, as in a warm-up.
        reconstruction: A loss of nested parts in place of ||x - x_hat||^2.
        anchor: Holds decoder rows near a vocabulary; computed here whatever its `every`.
        anchor_weight: lambda in place of the anchor's `weight`.

    Raises:
        LightsaeError: If a transcoder has no targets, or another autoencoder has some; if vectors
            of the anchor are not as wide as decoder rows.

    Example:
        >>> import torch
        >>> from lightsae.sae import L1L2Ratio, TopK
        >>> sae = SparseAutoencoder(4, 8, TopK(2))
        >>> parts = objective(sae, torch.randn(3, 4), regularizer=L1L2Ratio(0.01))
        >>> torch.allclose(parts.loss, parts.reconstruction + 0.01 * parts.penalty)
        True
    """
    of_code = regularizer if isinstance(regularizer, CodeRegularizer) else None
    encoded, residual, of_reconstruction = _reconstruct(
        sae, x, _left_to_code(sae, x, targets), reconstruction,
        None if of_code else regularizer, process_group,
    )  # fmt: skip
    penalty = encoded.penalty
    if of_code is not None:
        code = encoded.values, encoded.indices, sae.d_sae
        compared = x if embeddings is None else embeddings
        penalty = of_code.code_penalty(*code, compared, process_group)
    loss, auxiliary = of_reconstruction, of_reconstruction.new_zeros(())
    is_dead = None if dead is None else dead(encoded)
    if aux_k is not None and is_dead is not None:
        auxiliary = aux_k_loss(sae, x, residual, is_dead, aux_k.k_aux, process_group)
        loss = loss + aux_k.weight * auxiliary
    if regularizer is not None:
        weight = regularizer.weight if regularizer_weight is None else regularizer_weight
        loss = loss + weight * penalty
    sparsity: Tensor | None = getattr(encoded, "sparsity", None)
    if sparsity is not None:
        loss = loss + sparsity
    parts = Objective(loss, of_reconstruction, auxiliary, penalty, encoded, residual, sparsity)
    if anchor is None:
        return parts
    held = anchor.nearness(sae.W_dec)
    weight = anchor.weight if anchor_weight is None else anchor_weight
    return parts._replace(
        loss=loss - weight * held.value, anchor=held.value, nearest_cosine=held.nearest
    )


def _left_to_code(sae: SparseAutoencoder, x: Tensor, targets: Tensor | None) -> Tensor | None:
    """What the code of a transcoder is to reconstruct; None where that is the input."""
    if isinstance(sae, Transcoder):
        if targets is None:
            raise LightsaeError("the loss of a transcoder is of its targets, got none")
        return sae.left_to_code(x, targets)
    if targets is not None:
        raise LightsaeError(f"a {type(sae).__name__} reconstructs its inputs, got targets")
    return None


def _reconstruct(
    sae: SparseAutoencoder, x: Tensor, target: Tensor | None,
    reconstruction: Reconstruction | None, regularizer: Regularizer | None,
    process_group: ProcessGroup | None,
) -> Reconstructed:  # fmt: skip
    """Code and residual, and the loss that goes with them."""
    if reconstruction is not None:
        wanted = x if target is None else target
        return reconstruction(sae, x, wanted, regularizer=regularizer, process_group=process_group)
    encoded, (residual, error) = sae.encode_residual(
        x, target, regularizer=regularizer, process_group=process_group
    )
    return Reconstructed(encoded, residual, error.sum() / max(len(x), 1))
