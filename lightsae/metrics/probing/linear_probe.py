"""Logistic regressions on sparse codes, and a metric that counts what they get right."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.metrics.code_inputs import Code, after, size
from lightsae.metrics.metric_base import ExactMetric
from lightsae.metrics.probing.labelled_codes import LabelledCodes

_EXTRA = "evaluation"
_MAX_ITERATIONS = 1000


class LinearProbe:
    """Multinomial logistic regression with l2 penalty (scikit-learn, C = 1, L-BFGS).

    Features are divided by the root mean square length of the training rows, so that the penalty
    means the same for every autoencoder.

    Args:
        features: scipy CSR array [rows, features].
        labels: Class of each row [rows], integers.

    Attributes:
        converged: Whether the fit came to its end within 1,000 iterations.

    Raises:
        LightsaeError: If there are fewer than two classes.
        MissingExtraError: If scikit-learn is not installed.
    """

    def __init__(self, features: Any, labels: Tensor) -> None:
        if len(labels.unique()) < 2:
            raise LightsaeError("the training rows of a probe have fewer than two classes")
        linear_model = require("sklearn.linear_model", extra=_EXTRA)
        exceptions = require("sklearn.exceptions", extra=_EXTRA)
        square = float(features.multiply(features).sum()) / features.shape[0]
        self._factor = square**-0.5 if square > 0 else 1.0
        self._model = linear_model.LogisticRegression(max_iter=_MAX_ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
            self._model.fit(features * self._factor, labels.cpu().numpy())
        self.converged = bool(self._model.n_iter_.max() < _MAX_ITERATIONS)

    def predict(self, features: Any) -> Tensor:
        """Class of each row [rows], int64 on the CPU."""
        if features.shape[0] == 0:
            return torch.empty(0, dtype=torch.long)
        return torch.from_numpy(self._model.predict(features * self._factor)).long()


def ascending(k: Sequence[int]) -> tuple[int, ...]:
    """Sizes of a curve, refused if they are none.

    Example:
        >>> ascending([4, 2])
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: k = [4, 2], expected at least one, ascending
    """
    sizes = tuple(size("k", each) for each in k)
    if not sizes or list(sizes) != sorted(set(sizes)):
        raise LightsaeError(f"k = {list(k)}, expected at least one, ascending")
    return sizes


class ProbeMetric(ExactMetric):
    """Counts what probes get right, one probe for each k; a subclass says what a probe reads.

    Args:
        train: Codes and classes that the probes are fitted on.
        k: Sizes of the curve, ascending.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    correct: Tensor
    rows: Tensor

    def __init__(self, train: LabelledCodes, k: Sequence[int], **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_sae, self.k = train.d_sae, ascending(k)
        self.probes = [LinearProbe(self._features(train, each), train.labels) for each in self.k]
        self.add_state("correct", torch.zeros(len(self.k)).long(), dist_reduce_fx="sum")
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self,
        values: Code,
        indices: Tensor | None = None,
        labels: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> None:
        """Add rows to test on.

        Args:
            values: A `SparseCode`, or activations [rows, k], or [entries] with `rows`.
            indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
            labels: Class of each row [rows], integers; behind a `SparseCode` it may be the second
                argument.
            rows: Row of each entry, as a place in `labels` [entries], integers.

        Raises:
            LightsaeError: If shapes disagree or an index is out of range.
        """
        indices, labels = after(values, indices, labels, "labels")
        codes = LabelledCodes(values, indices, labels, self.d_sae, rows=rows)
        truth = codes.labels.cpu()
        right = [
            (probe.predict(self._features(codes, k)) == truth).sum()
            for k, probe in zip(self.k, self.probes, strict=True)
        ]
        self.correct = self.correct + torch.stack(right).to(self.correct.device)
        self.rows = self.rows + len(truth)

    def top1(self) -> Tensor:
        """Share of rows whose class is found, for each k, float64; NaN without rows."""
        return self.correct.double() / self.rows

    @property
    def converged(self) -> bool:
        """Whether every fit came to its end."""
        return all(probe.converged for probe in self.probes)

    def _features(self, codes: LabelledCodes, k: int) -> Any:
        """What the probe for k reads of codes, a scipy CSR array."""
        raise NotImplementedError
