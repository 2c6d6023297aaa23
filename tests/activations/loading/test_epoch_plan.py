import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightsae.activations.loading.epoch_plan import Share, plan_epoch
from lightsae.errors import LightsaeError

sizes = st.lists(st.integers(0, 7), min_size=1, max_size=12)


@given(sizes, st.integers(1, 5), st.integers(1, 9), st.integers(0, 5))
def test_ranks_share_every_row_once(
    rows: list[int], world_size: int, limit: int, seed: int
) -> None:
    per_chunk = np.array(rows)
    total = int(per_chunk.sum())
    if total < world_size:
        return
    order = np.random.default_rng(seed).permutation(len(rows))
    seen: list[tuple[int, int]] = []
    counts = []
    for rank in range(world_size):
        share = Share(total, rank, world_size, 2)
        groups = plan_epoch(per_chunk, per_chunk, share, order=order, group_rows=limit)
        assert sum(group.rows for group in groups) == share.rows
        assert all(
            per_chunk[group.chunks].sum() <= limit or len(group.chunks) == 1 for group in groups
        )
        for group in groups:
            for chunk, first, last in zip(group.chunks, group.first, group.last, strict=True):
                seen += [(int(chunk), row) for row in range(first, last)]
        counts.append(share.rows)
    assert len(set(seen)) == len(seen)
    assert len(seen) == total
    assert max(counts) - min(counts) <= 1


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 9), st.booleans())
def test_every_rank_has_as_many_batches_and_none_is_empty(
    total: int, world_size: int, batch_size: int, drop_last: bool
) -> None:
    if total < world_size:
        return
    shares = [Share(total, rank, world_size, batch_size, drop_last) for rank in range(world_size)]
    assert len({share.batches for share in shares}) == 1
    for share in shares:
        starts = [share.start(batch) for batch in range(share.batches + 1)]
        lengths = np.diff(starts)
        assert ((lengths > 0) & (lengths <= max(batch_size, 2))).all()
        assert starts[-1] <= share.rows if drop_last else starts[-1] == share.rows


def test_a_rank_without_rows_is_refused() -> None:
    share = Share(1, 0, 2, 4)
    with pytest.raises(LightsaeError, match="1 row cannot be divided over 2 processes"):
        plan_epoch(np.array([1]), np.array([1]), share, order=np.array([0]), group_rows=4)
