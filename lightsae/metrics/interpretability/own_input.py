"""Monosemanticity under the autoencoder's own input, as MonoLoss reports it."""

from torch import Tensor

from lightsae.metrics.code_inputs import Code, after
from lightsae.metrics.interpretability.monosemanticity import Monosemanticity, monosemanticity
from lightsae.metrics.interpretability.monosemanticity_scores import MonosemanticityScores


def own_input_monosemanticity(
    values: Code, indices: Tensor | None = None, x: Tensor | None = None, d_sae: int | None = None
) -> MonosemanticityScores:
    """Monosemanticity with the inputs that the autoencoder encodes as the embeddings.

    As MonoLoss (arXiv 2602.12403) reports it: its figures are `mean_with_dead_as_zero` and
    `median_with_dead_as_zero` of the result. Latents reconstruct the very space that they are
    judged in, so the score is higher than under a separate encoder, and does not compare with one.

    Args:
        values: A `SparseCode`, or activations [images, k], finite and not negative.
        indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
        x: Inputs of the autoencoder [images, d_in], one row per image; behind a `SparseCode` it
            may be the second argument.
        d_sae: Number of latents; a `SparseCode` tells it.

    Raises:
        LightsaeError: As in `monosemanticity`.

    Example:
        >>> import torch
        >>> values, indices = torch.ones(3, 1), torch.tensor([[0], [0], [1]])
        >>> x = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
        >>> scores = own_input_monosemanticity(values, indices, x, d_sae=2)
        >>> scores.mean, scores.mean_with_dead_as_zero
        (tensor(0.6000, dtype=torch.float64), tensor(0.3000, dtype=torch.float64))
    """
    indices, x = after(values, indices, x, "x")
    return monosemanticity(values, indices, x, d_sae)


class OwnInputMonosemanticity(Monosemanticity):
    """Monosemanticity with the inputs as embeddings; see `own_input_monosemanticity`.

    Args:
        d_sae: Number of latents.
        d_in: Width of the inputs.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> metric = OwnInputMonosemanticity(d_sae=2, d_in=2)
        >>> metric.update(torch.ones(1, 1), torch.tensor([[0]]), torch.tensor([[2.0, 0.0]]))
        >>> x = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> metric.update(torch.ones(2, 1), torch.tensor([[0], [1]]), x)
        >>> metric.compute().mean_with_dead_as_zero
        tensor(0.3000, dtype=torch.float64)
    """

    def __init__(self, d_sae: int, d_in: int, **kwargs: object) -> None:
        super().__init__(d_sae, d_in, **kwargs)

    def update(  # type: ignore[override]
        self, values: Code, indices: Tensor | None = None, x: Tensor | None = None
    ) -> None:
        """Add images.

        Args:
            values: A `SparseCode`, or activations [images, k].
            indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
            x: Inputs of the autoencoder [images, d_in]; behind a `SparseCode` it may be the second
                argument.

        Raises:
            LightsaeError: As in `monosemanticity`.
        """
        indices, x = after(values, indices, x, "x")
        super().update(values, indices, x)
