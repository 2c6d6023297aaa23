"""DeadLatentTracker: tokens since each latent fired."""

import torch
from lightsae_kernels import Encoded

from lightsae.training import DeadLatentTracker


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
