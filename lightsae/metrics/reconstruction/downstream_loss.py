"""Downstream loss: what a classifier loses when it reads reconstructions."""

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors, size
from lightsae.metrics.metric_base import ExactMetric
from lightsae.metrics.reconstruction.r2_moments import SCALARS, merge_moments, moments
from lightsae.metrics.reconstruction.reconstruction_inputs import by_name, matching_rows, width_of
from lightsae.sae.index_checks import integers, within


class DownstreamLosses:
    """Cross-entropies of a head, in nats per row, float64 scalars.

    Attributes:
        original: On the activations.
        reconstructed: On the reconstructions in their place.
        mean_ablated: On the mean activation in place of every row.
        recovered: `(mean_ablated - reconstructed) / (mean_ablated - original)`: 1 where nothing is
            lost, 0 where the mean does as well, NaN where the head reads nothing from the
            activations.
    """

    def __init__(
        self, original: Tensor, reconstructed: Tensor, mean_ablated: Tensor, recovered: Tensor
    ) -> None:
        self.original = original
        self.reconstructed = reconstructed
        self.mean_ablated = mean_ablated
        self.recovered = recovered


def _dtype(head: nn.Module) -> torch.dtype:
    """Return what the head computes in: the dtype of its parameters, float64 without one."""
    floats = (each.dtype for each in head.parameters() if each.is_floating_point())
    return next(floats, torch.float64)


@by_name
def downstream_loss(
    head: nn.Module, labels: Tensor, n_classes: int, *, x_hat: Tensor, x: Tensor
) -> DownstreamLosses:
    """Cross-entropy of a classifier head with the reconstruction in place of the activations.

    The share of the loss that is recovered is measured against mean-ablation, as the loss recovered
    of arXiv 2404.16014 (Rajamanoharan et al.) is against zero-ablation.

    Args:
        head: From activations [rows, d_in] to logits [rows, n_classes].
        labels: Class of each row [rows], integers.
        n_classes: Number of classes.
        x_hat: Reconstructions [rows, d_in].
        x: Activations [rows, d_in].

    Raises:
        LightsaeError: If shapes disagree, a label is no class or the logits have another width.

    Example:
        >>> x, labels = torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1])
        >>> losses = downstream_loss(torch.nn.Identity(), labels, 2, x_hat=0.5 * x, x=x)
        >>> round(losses.recovered.item(), 3)
        0.839
    """
    require_tensors(x_hat=x_hat, x=x)
    metric = DownstreamLoss(head, width_of(x), n_classes).to(x.device)
    metric.update(labels, x_hat=x_hat, x=x)
    return metric.compute()


class DownstreamLoss(ExactMetric):
    """Cross-entropy of a classifier head on activations and reconstructions, over everything seen.

    The head runs twice a batch and once more for the mean activation, at the end. It computes in
    its own dtype; the losses are summed in float64. See `downstream_loss` for the definition.

    Args:
        head: From activations [rows, d_in] to logits [rows, n_classes]; used in the mode it is in.
        d_in: Width of the activations.
        n_classes: Number of classes.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> x, labels = torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1])
        >>> metric = DownstreamLoss(torch.nn.Identity(), d_in=2, n_classes=2)
        >>> metric.update(labels, x_hat=0.5 * x, x=x)
        >>> round(metric.compute().mean_ablated.item(), 3)
        0.693
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    moments: Tensor
    losses: Tensor
    labels: Tensor

    def __init__(self, head: nn.Module, d_in: int, n_classes: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.head = head
        self.d_in, self.n_classes = size("d_in", d_in), size("n_classes", n_classes)
        empty = torch.zeros(SCALARS + self.d_in, dtype=torch.float64)
        self.add_state("moments", empty, dist_reduce_fx=merge_moments)
        self.add_state("losses", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("labels", torch.zeros(self.n_classes).long(), dist_reduce_fx="sum")

    @by_name
    def update(self, labels: Tensor, *, x_hat: Tensor, x: Tensor) -> None:
        """Add a batch, activations and reconstructions given by name.

        Args:
            labels: Class of each row [rows], integers.
            x_hat: Reconstructions [rows, d_in].
            x: Activations [rows, d_in].

        Raises:
            LightsaeError: As in `downstream_loss`.
        """
        require_tensors(x=x, labels=labels)
        x_hat, x = matching_rows(x_hat, x, self.d_in)
        if labels.shape != x.shape[:1]:
            raise LightsaeError(f"labels has shape {list(labels.shape)}, expected [{len(x)}]")
        legend = f"n_classes = {self.n_classes}"
        labels = within("labels", integers("labels", labels), self.n_classes, legend)
        if len(x) == 0:
            return
        losses = [
            nll_loss(self._log_probabilities(rows), labels, reduction="sum") for rows in (x, x_hat)
        ]
        self.losses = self.losses + torch.stack(losses)
        self.moments = merge_moments(torch.stack([self.moments, moments(x_hat, x)]))
        self.labels = self.labels + torch.bincount(labels, minlength=self.n_classes)

    def compute(self) -> DownstreamLosses:
        """Return the three losses and the share that is recovered."""
        rows = self.labels.sum()
        original, reconstructed = self.losses / rows
        mean = self.moments[SCALARS:].unsqueeze(0)
        ablated = -(self.labels * self._log_probabilities(mean)[0]).sum() / rows
        lost = ablated - original
        recovered = torch.where(lost == 0, torch.nan, (ablated - reconstructed) / lost)
        return DownstreamLosses(original, reconstructed, ablated, recovered)

    @torch.no_grad()
    def _log_probabilities(self, rows: Tensor) -> Tensor:
        """What the head says of rows [rows, d_in], float64 [rows, n_classes]."""
        logits = self.head(rows.to(_dtype(self.head)))
        if logits.shape != (len(rows), self.n_classes):
            raise LightsaeError(
                f"head gave shape {list(logits.shape)}, expected {[len(rows), self.n_classes]}"
            )
        log_probabilities: Tensor = logits.double().log_softmax(1)
        return log_probabilities
