import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightsae.activations.shards.norm_histogram import count_norms, norm_quantiles

norms = st.lists(st.floats(1e-30, 1e30) | st.just(0.0), min_size=1, max_size=40)
SHARES = (0.0, 0.05, 0.5, 0.95, 1.0)


def _rows(norms: list[float]) -> np.ndarray:
    """Rows of so many norms, their length in one of four places."""
    rows = np.zeros((len(norms), 4), np.float32)
    rows[np.arange(len(norms)), np.arange(len(norms)) % 4] = norms
    return rows


@given(norms)
def test_quantiles_are_those_of_the_rows_to_a_bin(norms: list[float]) -> None:
    rows = _rows(norms)
    exact = np.quantile(
        np.linalg.norm(rows.astype(np.float64), axis=1), SHARES, method="inverted_cdf"
    )
    found = norm_quantiles(count_norms(rows), SHARES)
    np.testing.assert_allclose(found, exact, rtol=0.0221)


@given(norms, norms)
def test_counts_of_parts_add_up(first: list[float], second: list[float]) -> None:
    together = count_norms(_rows(first)) + count_norms(_rows(second))
    assert together == count_norms(np.concatenate([_rows(first), _rows(second)]))
    assert together.total() == len(first) + len(second)


@pytest.mark.parametrize("scale", [1e-38, 1e38])
def test_squares_do_not_leave_the_range_of_float32(scale: float) -> None:
    rows = np.full((2, 3), scale, np.float32)
    (found,) = norm_quantiles(count_norms(rows), [0.5])
    assert found == pytest.approx(3**0.5 * scale, rel=0.0221)
