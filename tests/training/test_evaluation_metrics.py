"""Means of losses over rows, which are float64 whatever the module is moved or cast to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightsae.training.evaluation_metrics import EvaluationMetrics

from .helpers import make_data, make_module, make_trainer, metrics

MOVED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "nowhere": lambda module: module,
    "to a device": lambda module: module.cpu(),
    "bfloat16": lambda module: module.to(torch.bfloat16),
    "float16": lambda module: module.to(torch.float16),
}


@pytest.mark.parametrize("moved", MOVED)
def test_a_mean_is_over_rows_in_float64(moved: str) -> None:
    found = EvaluationMetrics(d_out=2, d_sae=4)
    MOVED[moved](found)
    values = torch.rand(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = [4096] * 99 + [1]
    for value, count in zip(values, rows, strict=True):
        found.loss.update(value, count)
    weights = torch.tensor(rows, dtype=torch.float64)
    expected = (values * weights).sum() / weights.sum()
    torch.testing.assert_close(found.loss.compute(), expected, rtol=1e-14, atol=0)
    found.loss.reset()
    found.loss.update(values[0], 3)
    assert found.loss.compute() == values[0]


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "32-true"])
def test_an_evaluation_is_that_of_the_fit_bit_for_bit(
    precision: Any, shards: Path, tmp_path: Path
) -> None:
    module, data = make_module(), make_data(shards)
    trainer = make_trainer(tmp_path, precision=precision)
    trainer.fit(module, data)
    [again] = trainer.validate(module, data, verbose=False)
    last = metrics(tmp_path)[-1]
    assert {name: last[name] for name in again} == again
