import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics import Monosemanticity, monosemanticity, pool_by_sample


def definition(dense: Tensor, embeddings: Tensor) -> Tensor:
    """All pairs, as Pach et al. write it; NaN without a pair of non-zero weights."""
    dense, e = dense.double(), embeddings.double()
    e = e / e.norm(dim=1, keepdim=True)
    low, high = dense.amin(0), dense.amax(0)
    w = (dense - low) / (high - low)
    weights = (w.T.unsqueeze(2) * w.T.unsqueeze(1)).triu(1)
    return (weights * (e @ e.T)).sum((1, 2)) / weights.sum((1, 2))


def sparse(dense: Tensor) -> tuple[Tensor, Tensor]:
    values, indices = dense.topk(int((dense > 0).sum(1).max()), dim=1)
    return values, indices


def random_codes(
    n: int, d_sae: int, d_embed: int, seed: int, density: float = 0.3
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dense = 0.1 + torch.rand(n, d_sae, generator=generator, dtype=torch.float64)
    dense = dense * (torch.rand(n, d_sae, generator=generator) < density)
    return dense, torch.randn(n, d_embed, generator=generator, dtype=torch.float64)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10, equal_nan=True)


@given(
    n=st.integers(1, 25),
    d_sae=st.integers(1, 12),
    d_embed=st.integers(1, 6),
    density=st.sampled_from([0.05, 0.3, 0.9, 1.0]),
    batch=st.integers(1, 25),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=80, deadline=None)
def test_one_pass_equals_the_sum_over_all_pairs(
    n: int, d_sae: int, d_embed: int, density: float, batch: int, seed: int
) -> None:
    dense, embeddings = random_codes(n, d_sae, d_embed, seed, density)
    metric = Monosemanticity(d_sae, d_embed)
    for start in range(0, n, batch):
        part = slice(start, start + batch)
        metric.update(*sparse(dense[part]), embeddings[part])
    result = metric.compute()
    assert_same(result.scores, definition(dense, embeddings))
    assert torch.equal(result.dead, (dense == 0).all(0))
    assert torch.equal(result.scores.isnan(), result.dead | result.undefined)
    assert not (result.dead & result.undefined).any()
    assert result.n_scored + result.n_dead + result.n_undefined == d_sae


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_codes_are_summed_in_float64(dtype: torch.dtype) -> None:
    dense, embeddings = (t.to(dtype) for t in random_codes(200, 40, 16, seed=1))
    result = monosemanticity(*sparse(dense), embeddings, d_sae=40)
    assert result.scores.dtype == torch.float64
    assert_same(result.scores, definition(dense, embeddings))


def test_a_latent_that_always_fires_is_scaled_from_its_minimum() -> None:
    dense = torch.tensor([[5.0], [6.0], [7.0], [9.0]])
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    metric = Monosemanticity(1, 2)
    for row in range(4):
        metric.update(*sparse(dense[row : row + 1]), embeddings[row : row + 1])
    scores = metric.compute().scores
    assert scores.shape == (1,)
    assert_same(scores, definition(dense, embeddings))


def test_one_weight_above_an_always_firing_minimum_is_undefined() -> None:
    dense = torch.tensor([[5.0], [5.0], [7.0], [5.0]]) / 3
    metric = Monosemanticity(1, 2)
    for row in range(4):
        metric.update(*sparse(dense[row : row + 1]), torch.randn(1, 2))
    result = metric.compute()
    assert (result.n_dead, result.n_undefined) == (0, 1)
    assert result.scores.isnan().all()


def test_a_constant_latent_is_undefined_and_not_dead() -> None:
    result = monosemanticity(torch.ones(5, 1), torch.zeros(5, 1).long(), torch.randn(5, 3), 1)
    assert (result.n_dead, result.n_undefined) == (0, 1)


@pytest.mark.parametrize(("range_over_value", "is_scored"), [(1e-4, True), (1e-6, False)])
def test_an_almost_constant_latent_is_scored_exactly_or_not_at_all(
    range_over_value: float, is_scored: bool
) -> None:
    generator = torch.Generator().manual_seed(2)
    dense = 1 + range_over_value * torch.rand(200, 1, generator=generator, dtype=torch.float64)
    embeddings = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    result = monosemanticity(*sparse(dense), embeddings, d_sae=1)
    assert result.n_undefined == (not is_scored)
    if is_scored:
        # Six digits are what the sums over raw activations leave at this range.
        torch.testing.assert_close(
            result.scores, definition(dense, embeddings), rtol=1e-6, atol=1e-6
        )


def test_silent_firing_once_and_firing_twice() -> None:
    values = torch.tensor([[1.0], [2.0], [3.0]])
    indices = torch.tensor([[1], [2], [2]])
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    result = monosemanticity(values, indices, embeddings, d_sae=3)
    assert result.dead.tolist() == [True, False, False]
    assert result.undefined.tolist() == [False, True, False]
    assert_same(result.scores, torch.tensor([torch.nan, torch.nan, 0.6], dtype=torch.float64))
    assert_same(result.mean, torch.tensor(0.6, dtype=torch.float64))


def test_a_second_activation_below_the_resolution_of_float64_is_no_pair() -> None:
    values = torch.tensor([[1.0], [1e-30]])
    result = monosemanticity(values, torch.zeros(2, 1).long(), torch.eye(2), d_sae=1)
    assert result.n_undefined == 1


def test_identical_embeddings_score_one() -> None:
    dense, _ = random_codes(30, 8, 1, seed=3)
    embeddings = torch.tensor([[3.0, -4.0]]).expand(30, 2)
    scores = monosemanticity(*sparse(dense), embeddings, d_sae=8).scores
    assert_same(scores, torch.ones_like(scores))


def test_the_length_of_an_embedding_does_not_matter() -> None:
    dense, embeddings = random_codes(30, 8, 4, seed=4)
    scaled = embeddings * torch.linspace(0.01, 100, 30).unsqueeze(1)
    whole = monosemanticity(*sparse(dense), embeddings, d_sae=8).scores
    assert_same(monosemanticity(*sparse(dense), scaled, d_sae=8).scores, whole)


def test_the_scale_of_the_activations_does_not_matter() -> None:
    dense, embeddings = random_codes(30, 8, 4, seed=5, density=1.0)
    whole = monosemanticity(*sparse(dense), embeddings, d_sae=8).scores
    assert_same(monosemanticity(*sparse(1e-6 * dense), embeddings, d_sae=8).scores, whole)


def test_the_median_is_the_midpoint_of_two() -> None:
    dense, embeddings = random_codes(30, 6, 4, seed=6)
    dense[:, :2] = 0
    result = monosemanticity(*sparse(dense), embeddings, d_sae=6)
    low, high = result.scores[2:].sort().values[1:3]
    assert_same(result.median, (low + high) / 2)
    assert_same(result.mean, result.scores[2:].mean())
    assert f"scored={4}, dead={2}" in repr(result)


def test_without_images_nothing_has_a_score() -> None:
    metric = Monosemanticity(3, 2)
    none = torch.zeros(0, 4)
    metric.update(none, none.long(), torch.zeros(0, 2))
    result = metric.compute()
    assert result.n_dead == 3
    assert result.mean.isnan()
    assert result.median.isnan()


def test_an_empty_batch_changes_nothing() -> None:
    dense, embeddings = random_codes(20, 6, 4, seed=7, density=1.0)
    metric = Monosemanticity(6, 4)
    metric.update(*sparse(dense), embeddings)
    metric.update(torch.zeros(0, 4), torch.zeros(0, 4).long(), torch.zeros(0, 4))
    assert_same(metric.compute().scores, definition(dense, embeddings))


def test_entries_of_any_number_per_image_equal_dense_rows() -> None:
    dense, embeddings = random_codes(20, 6, 4, seed=8)
    rows, latents = dense.nonzero(as_tuple=True)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    rows, latents = rows[order], latents[order]
    result = monosemanticity(dense[rows, latents], latents, embeddings, 6, rows=rows)
    assert_same(result.scores, definition(dense, embeddings))


def test_pooled_patch_tokens() -> None:
    dense, _ = random_codes(60, 6, 1, seed=9)
    embeddings = torch.randn(10, 4, generator=torch.Generator().manual_seed(9))
    sample_index = torch.randint(0, 10, (60,), generator=torch.Generator().manual_seed(9))
    pooled = pool_by_sample(*sparse(dense), sample_index, d_sae=6)
    metric = Monosemanticity(6, 4)
    metric.update(pooled.values, pooled.indices, embeddings[pooled.sample_index], pooled.rows)
    by_image = torch.stack([dense[sample_index == i].amax(0) for i in pooled.sample_index])
    assert_same(metric.compute().scores, definition(by_image, embeddings[pooled.sample_index]))


def test_merged_parts_equal_the_whole() -> None:
    dense, embeddings = random_codes(30, 8, 4, seed=10, density=0.9)
    left, right = Monosemanticity(8, 4), Monosemanticity(8, 4)
    left.update(*sparse(dense[:13]), embeddings[:13])
    right.update(*sparse(dense[13:]), embeddings[13:])
    left.merge_state(right)
    assert_same(left.compute().scores, definition(dense, embeddings))


def test_forward_returns_the_batch_and_keeps_the_whole() -> None:
    dense, embeddings = random_codes(30, 8, 4, seed=11, density=0.9)
    metric = Monosemanticity(8, 4)
    for part in (slice(0, 10), slice(10, 30)):
        batch = metric(*sparse(dense[part]), embeddings[part])
        assert_same(batch.scores, definition(dense[part], embeddings[part]))
    assert_same(metric.compute().scores, definition(dense, embeddings))


def test_reset_forgets() -> None:
    dense, embeddings = random_codes(30, 8, 4, seed=12)
    metric = Monosemanticity(8, 4)
    metric.update(*sparse(dense), embeddings)
    metric.reset()
    metric.update(*sparse(dense[:9]), embeddings[:9])
    assert_same(metric.compute().scores, definition(dense[:9], embeddings[:9]))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8], ids=["int32", "uint8"])
def test_narrow_indices_do_not_overflow(dtype: torch.dtype) -> None:
    images, latent = 3000, torch.iinfo(dtype).max >> 11 if dtype == torch.int32 else 255
    values = torch.rand(images, 1, generator=torch.Generator().manual_seed(0)) + 0.1
    embeddings = torch.randn(images, 2, generator=torch.Generator().manual_seed(1))
    indices = torch.full((images, 1), latent)
    wide = monosemanticity(values, indices, embeddings, d_sae=latent + 1)
    narrow = monosemanticity(values, indices.to(dtype), embeddings, d_sae=latent + 1)
    assert_same(narrow.scores[-1:], definition(values, embeddings))
    assert torch.equal(narrow.scores[-1], wide.scores[-1])


GOOD = {
    "values": torch.ones(2, 2),
    "indices": torch.tensor([[0, 1], [1, 2]]),
    "embeddings": torch.eye(2),
}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"values": torch.full((2, 2), torch.nan)}, "values must be finite"),
        ({"values": -torch.ones(2, 2)}, "values must be finite and not negative"),
        ({"indices": torch.tensor([[0, 1], [1, 9]])}, r"indices must lie in \[0, d_sae = 3\)"),
        ({"indices": torch.tensor([[0, 0], [1, 2]])}, "a latent occurs twice in one row"),
        ({"indices": torch.tensor([[0], [1]])}, r"indices has shape \[2, 1\], expected values'"),
        ({"embeddings": torch.eye(3)}, r"expected \[images, 2\]"),
        ({"embeddings": torch.ones(3, 2)}, "values has 2 rows, expected one per embedding: 3"),
        ({"embeddings": torch.tensor([[1.0, 0.0], [0.0, 0.0]])}, "embeddings row 1 has norm"),
        ({"embeddings": torch.tensor([[torch.nan, 0.0], [1.0, 0.0]])}, "embeddings row 0 has norm"),
        ({"rows": torch.tensor([[0, 0], [1, 2]])}, r"rows must lie in \[0, 2\)"),
    ],
    ids=[
        "nan-value",
        "negative-value",
        "latent-out-of-range",
        "latent-twice",
        "shape",
        "embedding-width",
        "row-count",
        "zero-embedding",
        "nan-embedding",
        "row-out-of-range",
    ],
)
def test_bad_input_is_named(bad: dict[str, Tensor], message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        Monosemanticity(3, 2).update(**(GOOD | bad))
