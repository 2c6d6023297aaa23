"""Probes on every layer, on raw activations and on codes, side by side."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightsae.interventions.finding.labelled_rows import Labels
from lightsae.interventions.finding.layer_features import LayerFeatures
from lightsae.interventions.finding.model_calls import tracked
from lightsae.interventions.finding.probe import Probe, fit_probe


class LayerProbes(NamedTuple):
    """Probes on one layer.

    Attributes:
        raw: On raw activations.
        codes: On codes.
    """

    raw: Probe
    codes: Probe

    def row(self) -> dict[str, float | bool]:
        """Figures of a table: of both the mean AUC, its deviation over folds, the accuracy."""
        figures: dict[str, float | bool] = {}
        for name, probe in self._asdict().items():
            figures |= {
                f"{name}_auc": probe.mean_auc,
                f"{name}_auc_sd": probe.sd_auc,
                f"{name}_accuracy": probe.mean_accuracy,
                f"{name}_converged": probe.converged,
            }
        return figures


def probe_layers(
    features: Mapping[str, LayerFeatures],
    labels: Labels,
    *,
    folds: int = 5,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    show_progress: bool = True,
) -> dict[str, LayerProbes]:
    """Fit two probes on each layer, all in the same folds; see `fit_probe`.

    Args:
        features: Of each layer, as `collect_features` gives them.
        labels: 0 or 1 for each row, [n].
        folds: Number of folds.
        seed: Of folds and fits.
        groups: Of each row what it is a part of, such as its recording.
        show_progress: Show a bar on a terminal.

    Returns:
        Of each layer its probes.

    Raises:
        LightsaeError: As in `fit_probe`.

    Example:
        >>> import numpy as np
        >>> from scipy.sparse import csr_array
        >>> labels = np.arange(20) % 2
        >>> both = LayerFeatures(csr_array(labels[:, None] * [[0.0, 1.0]]), np.ones((20, 1)))
        >>> found = probe_layers({"blocks.3": both}, labels)
        >>> found["blocks.3"].row()["codes_auc"], found["blocks.3"].row()["raw_auc"]
        (1.0, 0.5)
    """
    return {
        layer: LayerProbes(
            fit_probe(both.activations, labels, folds=folds, seed=seed, groups=groups),
            fit_probe(both.codes, labels, folds=folds, seed=seed, groups=groups),
        )
        for layer, both in tracked(list(features.items()), "probes", show_progress)
    }
