"""DeadLatentTracker: tokens since each latent fired; and runs in which none can be called dead."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightsae_kernels import Encoded

from lightsae.sae import AuxK
from lightsae.training import DeadLatentTracker

from .helpers import D_IN, make_data, make_module, make_trainer, metrics


def code(values: list[list[float]], indices: list[list[int]], d_sae: int = 4) -> Encoded:
    return Encoded(
        torch.tensor(values).view(len(values), len(values[0]) if values else 1),
        torch.tensor(indices).long().view(len(values), len(values[0]) if values else 1),
        torch.zeros(()),
        torch.ones(d_sae, dtype=torch.bool),
    )


def test_tokens_count_until_a_latent_fires() -> None:
    tracker = DeadLatentTracker(4)
    tracker.update(code([[2.0], [1.0], [1.0]], [[0], [0], [2]]))
    assert tracker.tokens_since_fired.tolist() == [0, 3, 0, 3]
    tracker.update(code([[1.0], [1.0]], [[1], [1]]))
    assert tracker.tokens_since_fired.tolist() == [2, 0, 2, 5]


def test_a_zero_that_fills_a_row_is_no_firing() -> None:
    tracker = DeadLatentTracker(4)
    tracker.update(code([[1.0, 0.0]], [[0, 1]]))
    assert tracker.tokens_since_fired.tolist() == [0, 1, 1, 1]


def test_a_firing_must_be_above_the_threshold() -> None:
    tracker = DeadLatentTracker(4)
    tracker.update(code([[1.0, 1e-3, 9e-4]], [[0, 1, 2]]), fired_above=1e-3)
    assert tracker.tokens_since_fired.tolist() == [0, 1, 1, 1]


def test_dead_is_from_the_threshold_on() -> None:
    tracker = DeadLatentTracker(4)
    tracker.update(code([[1.0], [1.0]], [[0], [0]]))
    assert tracker.dead(2).tolist() == [False, True, True, True]
    assert not tracker.dead(3).any()


def test_an_empty_batch_changes_nothing() -> None:
    tracker = DeadLatentTracker(4)
    tracker.update(code([], []))
    assert tracker.tokens_since_fired.tolist() == [0] * 4


def test_counters_are_saved_and_hold_more_than_an_int32() -> None:
    tracker = DeadLatentTracker(2)
    tracker.tokens_since_fired += 2**40
    again = DeadLatentTracker(2)
    again.load_state_dict(tracker.state_dict())
    assert again.tokens_since_fired.tolist() == [2**40] * 2


def test_counters_keep_their_dtype_when_the_module_changes_its_own() -> None:
    assert DeadLatentTracker(2).half().tokens_since_fired.dtype == torch.int64


NEVER = "aux_k.dead_after = 321 does not come within the run, which has {} rows"


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"max_epochs": 2}, 320),
        ({"max_epochs": 1}, 160),
        ({"max_epochs": 9, "max_steps": 3}, 48),
        ({"max_epochs": -1, "max_steps": 3, "accumulate_grad_batches": 2}, 96),
        ({"max_epochs": 2, "limit_train_batches": 5}, 160),
    ],
    ids=str,
)
def test_a_run_too_short_for_a_dead_latent_is_told(
    options: dict[str, Any], rows: int, shards: Path, tmp_path: Path
) -> None:
    module = make_module(aux_k=AuxK(dead_after=321))
    trainer = make_trainer(tmp_path, limit_val_batches=0, **options)
    with pytest.warns(UserWarning, match=NEVER.format(rows)) as told:
        trainer.fit(module, make_data(shards))
    [warning] = [w for w in told if "dead_after" in str(w.message)]
    assert str(warning.message).endswith(f"set it to {rows // 10}, a tenth of them, or less")


@pytest.mark.parametrize(
    ("dead_after", "options"),
    [
        (320, {"max_epochs": 2}),
        (321, {"max_epochs": -1, "max_time": "00:00:00:01", "limit_train_batches": 1}),
        (321, {"fast_dev_run": True}),
    ],
    ids=str,
)
def test_a_run_that_may_be_long_enough_or_is_a_trial_is_not(
    dead_after: int,
    options: dict[str, Any],
    shards: Path,
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
) -> None:
    module = make_module(aux_k=AuxK(dead_after=dead_after))
    make_trainer(tmp_path, limit_val_batches=0, **options).fit(module, make_data(shards))
    assert recwarn.list == []


def test_batches_count_however_many_make_a_step(
    shards: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    module = make_module(aux_k=AuxK(dead_after=320))
    changing = GradientAccumulationScheduler({1: 4})
    make_trainer(tmp_path, max_epochs=2, callbacks=[changing]).fit(module, make_data(shards))
    [of_lightning] = recwarn.list
    assert "the hooks will not be called on every batch" in str(of_lightning.message)


def test_counters_of_an_earlier_fit_count(
    shards: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    module = make_module(aux_k=AuxK(dead_after=320), d_in=D_IN)
    module.dead_latents.tokens_since_fired[0] = 160
    make_trainer(tmp_path, max_epochs=1).fit(module, make_data(shards))
    assert recwarn.list == []


def test_without_aux_k_there_is_nothing_to_set(
    shards: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    make_trainer(tmp_path, max_epochs=1).fit(make_module(), make_data(shards))
    assert recwarn.list == []


def test_a_run_tells_after_how_many_rows_a_latent_is_dead(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = make_module(aux_k=AuxK(dead_after_multiple=2))
    with caplog.at_level("INFO", logger="lightsae"):
        make_trainer(tmp_path, max_epochs=1).fit(module, make_data(shards))
    told = [text for text in caplog.messages if "aux_k" in text]
    assert told == ["aux_k: a latent is dead after 16 rows without firing (2 d_sae / k)"]
    logged = [row["train/dead_fraction"] for row in metrics(tmp_path) if "train/loss" in row][-1]
    assert logged == (module.dead_latents.tokens_since_fired >= 16).float().mean().item()


def test_without_aux_k_the_rows_that_the_metrics_go_by_are_told(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = make_module()
    with caplog.at_level("INFO", logger="lightsae"):
        make_trainer(tmp_path, max_epochs=1).fit(module, make_data(shards))
    told = [text for text in caplog.messages if "rows without firing" in text]
    assert told == [
        "train/dead_fraction: a latent is dead after 640 rows without firing (80 d_sae / k)"
    ]


def test_what_the_user_set_is_not_told(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = make_module(aux_k=AuxK(dead_after=16))
    with caplog.at_level("INFO", logger="lightsae"):
        make_trainer(tmp_path, max_epochs=1).fit(module, make_data(shards))
    assert not [text for text in caplog.messages if "rows without firing" in text]
