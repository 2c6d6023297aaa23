"""Contrast of two labelled sets of rows, latent by latent."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.interventions.finding.false_discovery import adjusted
from lightsae.interventions.finding.labelled_rows import Labels, checked_codes, checked_labels
from lightsae.interventions.finding.rank_sums import p_values, rank_sums

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array


@dataclass(frozen=True, eq=False)
class Contrast:
    """How each latent differs between the rows of label 1 and those of label 0.

    Attributes:
        effect: Mean of label 1 less mean of label 0, over the pooled standard deviation (Cohen's
            d), [d_sae] float64; infinite where neither set varies but their means differ.
        auroc: Probability that a row of label 1 has more, ties counting half, [d_sae] float64.
        log_odds: Log of the odds of firing in label 1 over those in label 0, half a row added to
            each count (Haldane-Anscombe), [d_sae] float64.
        p_value: Two-sided, of the Mann-Whitney test; see `rank_sums.p_values`, [d_sae] float64.
            1 where a latent never fires: that is no test.
        q_value: p_value adjusted by Benjamini and Hochberg over the latents that fire; 1 for the
            others, [d_sae] float64.
        rates: Share of rows where the latent fires, of label 0 and of label 1, [2, d_sae] float64.
        alpha: False-discovery rate of `discoveries`.
    """

    effect: Array
    auroc: Array
    log_odds: Array
    p_value: Array
    q_value: Array
    rates: Array
    alpha: float

    @cached_property
    def ranking(self) -> Array:
        """Latents by |effect|, largest first, equal ones by number, [d_sae] int64."""
        return np.argsort(-np.abs(self.effect), kind="stable")

    @cached_property
    def discoveries(self) -> Array:
        """Latents whose q_value is at most alpha, bool [d_sae]."""
        found: Array = self.q_value <= self.alpha
        return found


def contrast(
    codes: "csr_array | Array | Tensor", labels: Labels, *, alpha: float = 0.05
) -> Contrast:
    """Compare two labelled sets in every latent.

    Args:
        codes: A row for each sample, [n, d_sae] floats: a scipy CSR array, or dense.
        labels: 0 or 1 for each row, [n].
        alpha: False-discovery rate, in (0, 1). The bound of Benjamini and Hochberg holds for
            independent and for positively dependent latents.

    Returns:
        Effects, AUROC, log-odds, p- and q-values of each latent.

    Raises:
        LightsaeError: If a set is empty, labels are not 0 and 1 or not as many as rows, or codes
            hold NaN.
        MissingExtraError: If scipy is not installed.

    Example:
        >>> codes = np.array([[0.0, 1.0, 0.0], [0.0, 2.0, 0.0], [3.0, 1.0, 0.0], [2.0, 2.0, 0.0]])
        >>> found = contrast(codes, [0, 0, 1, 1])
        >>> found.ranking.tolist(), found.auroc.tolist(), found.effect.round(2).tolist()
        ([0, 1, 2], [1.0, 0.5, 0.5], [5.0, 0.0, 0.0])
    """
    if not 0 < alpha < 1:
        raise LightsaeError(f"alpha is {alpha}, expected a rate in (0, 1)")
    rows = checked_codes(codes)
    ones = checked_labels(labels, rows.shape[0])
    columns = rows.tocsc()
    ranks = rank_sums(columns, ones)
    firing = np.stack([ranks.firing - ranks.firing_ones, ranks.firing_ones])
    sizes = np.array([[len(ones) - ranks.ones], [ranks.ones]])
    odds = np.log(firing + 0.5) - np.log(sizes - firing + 0.5)
    p = p_values(ranks)
    return Contrast(
        effect=_effect(columns, ones),
        auroc=ranks.auroc(),
        log_odds=odds[1] - odds[0],
        p_value=p,
        q_value=adjusted(p, ranks.firing > 0),
        rates=firing / sizes,
        alpha=alpha,
    )


def _effect(columns: "csc_array", ones: Array) -> Array:
    """Difference of means over the pooled standard deviation, [d]."""
    n, d = columns.shape
    latent = np.repeat(np.arange(d), np.diff(columns.indptr))
    values = columns.data.astype(np.float64)
    group = ones[columns.indices]
    means, squares = [], np.zeros(d)
    for label in (False, True):
        here, rows = group == label, int((ones == label).sum())
        mean = np.bincount(latent[here], weights=values[here], minlength=d) / rows
        off = (values[here] - mean[latent[here]]) ** 2
        silent = rows - np.bincount(latent[here], minlength=d)
        squares += np.bincount(latent[here], weights=off, minlength=d) + silent * mean**2
        means.append(mean)
    difference = means[1] - means[0]
    # Equal means may differ by their rounding, which nothing then stands beside.
    difference[np.abs(difference) <= 1e-12 * np.abs(means).max(axis=0)] = 0
    deviation = np.sqrt(squares / max(n - 2, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        effect: Array = np.where(difference == 0, 0.0, difference / deviation)
    return effect
