"""Bytes that a rank sends: the formulas of the module, and that d_sae does not matter."""

from lightsae.planning.shape import Shape
from lightsae.planning.traffic import traffic_of

SHAPE = Shape(d_in=96, d_sae=4096, k=16, batch=512)


def sent(shape: Shape, data: int, latent: int) -> dict[str, int]:
    return {each.name: each.bytes for each in traffic_of(shape, data, latent)}


def test_one_device_sends_nothing() -> None:
    assert sent(SHAPE, 1, 1) == {}


def test_data_parallel_ranks_send_every_gradient_nearly_twice() -> None:
    elements = 2 * 4096 * 96 + 4096 + 96
    assert sent(SHAPE, 4, 1) == {"gradients": 2 * 3 * elements}


def test_latent_parallel_ranks_send_rows_and_candidates() -> None:
    assert sent(SHAPE, 1, 4) == {
        "inputs": 3 * 512 * 96,
        "candidates": 3 * 8 * 512 * 16,
        "reconstruction": 2 * 3 * 512 * 96,
        "gradient of b_dec": 2 * 3 * 96,
    }


def test_latent_parallel_traffic_does_not_grow_with_the_dictionary() -> None:
    assert sent(SHAPE, 1, 4) == sent(SHAPE._replace(d_sae=16 * 4096), 1, 4)


def test_in_two_dimensions_gradients_are_those_of_the_own_latents() -> None:
    both = sent(SHAPE, 2, 4)
    assert both["gradients"] == 4 * (2 * 1024 * 96 + 1024 + 96)
    assert both["inputs"] == sent(SHAPE, 1, 4)["inputs"]


def test_accumulated_batches_are_exchanged_one_by_one_but_gradients_once() -> None:
    twice = SHAPE._replace(accumulate=2)
    assert sent(twice, 1, 4)["candidates"] == 2 * sent(SHAPE, 1, 4)["candidates"]
    assert sent(twice, 4, 1) == sent(SHAPE, 4, 1)


def test_reg_2_also_exchanges_norms_of_rows() -> None:
    assert sent(SHAPE._replace(regularizer="l1_l2_ratio"), 1, 2)["norms of rows"] == 8 * 512
    assert "norms of rows" not in sent(SHAPE._replace(regularizer="off_support_l1"), 1, 2)
