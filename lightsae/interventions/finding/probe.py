"""A linear probe: cross-validated logistic regression on codes or on raw activations."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.interventions.finding.labelled_rows import Labels, checked_features, checked_labels
from lightsae.plural import counted

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from sklearn.pipeline import Pipeline

_MAX_ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class Probe:
    """What a probe found in held-out folds.

    Attributes:
        auc: Area under the ROC curve on each held-out fold, [folds] float64.
        accuracy: Share of rows that are right on each, [folds] float64.
        coef: Coefficients, mean over folds, of features divided by their largest magnitude in the
            rows of the fit, [d] float64; positive ones speak for label 1.
        converged: Whether every fit came to its end within 1,000 passes.
    """

    auc: Array
    accuracy: Array
    coef: Array
    converged: bool

    @property
    def mean_auc(self) -> float:
        """Mean over folds."""
        return float(self.auc.mean())

    @property
    def sd_auc(self) -> float:
        """Standard deviation over folds, divided by their number less 1."""
        return float(self.auc.std(ddof=1))

    @property
    def mean_accuracy(self) -> float:
        """Mean over folds."""
        return float(self.accuracy.mean())

    @cached_property
    def ranking(self) -> Array:
        """Features by |coef|, largest first, equal ones by number, [d] int64."""
        return np.argsort(-np.abs(self.coef), kind="stable")


def fit_probe(
    features: "csr_array | Array | Tensor",
    labels: Labels,
    *,
    folds: int = 5,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Probe:
    """Fit a logistic regression with l2 penalty (scikit-learn, C = 1, saga) in stratified folds.

    Features are divided by their largest magnitude in the rows of each fit, which leaves zeros as
    they are; sparse ones stay sparse (arXiv 2606.07473). Fits end at scikit-learn's tolerance; of
    sparse features coefficients are then within some percent of the largest one's size.

    Args:
        features: A row for each sample, [n, d] floats: a scipy CSR array, or dense.
        labels: 0 or 1 for each row, [n].
        folds: Number of folds, 2 or more; each label needs as many rows.
        seed: Of folds and fits.
        groups: Of each row what it is a part of, such as its recording; rows of a group are in one
            fold, or their likeness would be taken for generalisation. By default each is its own.

    Returns:
        AUC and accuracy of each held-out fold, and coefficients.

    Raises:
        LightsaeError: If there are too few rows or groups of a label, labels are not 0 and 1 or not
            as many as rows, or features hold NaN.
        MissingExtraError: If scikit-learn is not installed.

    Example:
        >>> labels = np.arange(40) % 2
        >>> noise = np.random.default_rng(0).random((40, 3))
        >>> probe = fit_probe(noise + labels[:, None] * [0, 2, 0], labels)
        >>> probe.mean_auc, int(probe.ranking[0]), probe.converged
        (1.0, 1, True)
    """
    found = checked_features(features, "features")
    ones = checked_labels(labels, found.shape[0])
    _require_folds(ones, folds)
    if groups is not None:
        _require_groups(ones, folds, groups)
    selection = require("sklearn.model_selection", extra="evaluation")
    metrics = require("sklearn.metrics", extra="evaluation")
    kind = selection.StratifiedKFold if groups is None else selection.StratifiedGroupKFold
    splitter = kind(folds, shuffle=True, random_state=seed)
    auc, accuracy, coef, converged = [], [], [], True
    for train, test in splitter.split(ones, ones, groups):
        if ones[test].all() or not ones[test].any():
            raise LightsaeError(f"groups: one of {folds} folds has a single label, take fewer")
        model = _fitted(found[train], ones[train], seed)
        scores = model.decision_function(found[test])
        auc.append(metrics.roc_auc_score(ones[test], scores))
        accuracy.append(((scores > 0) == ones[test]).mean())
        coef.append(model[-1].coef_[0])
        converged &= bool(model[-1].n_iter_.max() < _MAX_ITERATIONS)
    mean = np.stack(coef).mean(axis=0, dtype=np.float64)
    return Probe(np.array(auc), np.array(accuracy), mean, converged)


def _fitted(features: "csr_array | Array", ones: Array, seed: int) -> "Pipeline":
    """Scaling and regression, fitted."""
    linear_model = require("sklearn.linear_model", extra="evaluation")
    exceptions = require("sklearn.exceptions", extra="evaluation")
    pipeline = require("sklearn.pipeline", extra="evaluation")
    preprocessing = require("sklearn.preprocessing", extra="evaluation")
    regression = linear_model.LogisticRegression(
        solver="saga", max_iter=_MAX_ITERATIONS, random_state=seed
    )
    model = pipeline.make_pipeline(preprocessing.MaxAbsScaler(), regression)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        return model.fit(features, ones)


def _require_folds(ones: Array, folds: int) -> None:
    if not isinstance(folds, int) or folds < 2:
        raise LightsaeError(f"folds is {folds}, expected 2 or more")
    for label, rows in enumerate((int((~ones).sum()), int(ones.sum()))):
        if rows < folds:
            raise LightsaeError(
                f"labels: {counted(rows, 'row')} with label {label}, {folds} folds need {folds} "
                "or more"
            )


def _require_groups(ones: Array, folds: int, groups: Sequence[str]) -> None:
    if len(groups) != len(ones):
        raise LightsaeError(f"groups: {len(groups)}, expected {len(ones)}, one for each row")
    for label, rows in enumerate((~ones, ones)):
        found = len({group for group, there in zip(groups, rows, strict=True) if there})
        if found < folds:
            raise LightsaeError(
                f"groups: {counted(found, 'group')} with label {label}, {folds} folds need {folds} "
                "or more"
            )
