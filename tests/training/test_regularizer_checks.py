"""A warm-up of lambda that the run is too short for."""

from pathlib import Path
from typing import Any

import pytest

from lightsae.sae import L1L2Ratio

from .helpers import make_data, make_module, make_trainer


def fit(shards: Path, run: Path, weight_warmup: int, **options: Any) -> None:
    module = make_module(regularizer=L1L2Ratio(0.1, weight_warmup=weight_warmup))
    make_trainer(run, limit_val_batches=0, **options).fit(module, make_data(shards))


def test_a_run_that_ends_before_lambda_has_risen_names_both_lengths(
    shards: Path, tmp_path: Path
) -> None:
    says = (
        "L1L2Ratio: weight_warmup = 40 is longer than the run, which has 20 optimizer steps: "
        "lambda rises to 0.0475 of 0.1"
    )
    with pytest.warns(UserWarning, match=says):
        fit(shards, tmp_path, 40, max_epochs=2)


@pytest.mark.parametrize(
    ("weight_warmup", "options"),
    [
        (20, {"max_epochs": 2}),
        (40, {"fast_dev_run": True}),
        (40, {"max_epochs": -1, "max_time": "00:00:00:01", "limit_train_batches": 1}),
    ],
    ids=["long enough", "a trial", "without an end"],
)
def test_other_runs_are_not_warned(
    weight_warmup: int,
    options: dict[str, Any],
    shards: Path,
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
) -> None:
    fit(shards, tmp_path, weight_warmup, **options)
    assert recwarn.list == []
