"""F of an analysis of variance of latents between classes."""

import torch
from torch import Tensor

from lightsae.metrics.code_inputs import pair_keys
from lightsae.metrics.grouped_sums import grouped_sums
from lightsae.metrics.probing.labelled_codes import LabelledCodes

# Variation over squares that is rounding of float64 alone.
_ROUNDING = 1e-24


def anova_f(codes: LabelledCodes) -> Tensor:
    """F of an analysis of variance of each latent between the classes [d_sae], float64.

    Variance between classes over that within, each over its degrees of freedom, as scikit-learn's
    `f_classif`; but from deviations, where differences of sums leave nothing but rounding of a
    latent that hardly varies. NaN for a latent that is the same on all rows.

    Args:
        codes: Rows with their classes, at least two.

    Example:
        >>> values, indices = torch.tensor([[1.0], [3.0], [2.0], [6.0]]), torch.zeros(4, 1).long()
        >>> anova_f(LabelledCodes(values, indices, torch.tensor([0, 0, 1, 1]), d_sae=2))
        tensor([0.8000,    nan], dtype=torch.float64)
    """
    classes, labels, rows = codes.labels.unique(return_inverse=True, return_counts=True)
    n, d_sae, a = len(classes), codes.d_sae, codes.values
    legend = f"d_sae = {d_sae} and {n} classes"
    cells = pair_keys(codes.indices, labels[codes.rows], d_sae, n, legend)
    means = grouped_sums(a, cells, d_sae * n).view(d_sae, n) / rows
    silent = rows - torch.bincount(cells, minlength=d_sae * n).view(d_sae, n)
    within = grouped_sums((a - means.view(-1)[cells]).square(), codes.indices, d_sae)
    within += (silent * means.square()).sum(1)
    mean = (rows * means).sum(1, keepdim=True) / rows.sum()
    between = (rows * (means - mean).square()).sum(1)
    f: Tensor = (between / (n - 1)) / (within / (len(codes) - n))
    total = grouped_sums(a.square(), codes.indices, d_sae)
    return f.where(between + within > _ROUNDING * total, torch.nan)
