"""Stability over data: one pass for all seeds, beside its definitions."""

import copy
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightsae.dictionaries import (
    Cut,
    StabilityResult,
    compare_spans,
    latent_stability,
    measure_stability,
    reconstruction_shares,
)
from lightsae.errors import LightsaeError
from lightsae.metrics import r2
from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder, SparseCode, TopK, Transcoder


def seeds(n: int = 3, d_sae: int = 24, **options: object) -> list[SparseAutoencoder]:
    """Autoencoders of which the first eight latents are alike, and the last never fires."""
    torch.manual_seed(0)
    shared = torch.linalg.qr(torch.randn(10, 10)).Q[:8]
    found = []
    for _ in range(n):
        sae = SparseAutoencoder(10, d_sae, TopK(3), **options)  # type: ignore[arg-type]
        sae.W_dec.data[:8] = sae.W_enc.data[:8] = shared + 0.01 * torch.randn(8, 10)
        sae.b_enc.data[-1] = -100
        found.append(sae)
    return found


def rows(n: int = 500) -> Tensor:
    return torch.randn(n, 10, generator=torch.Generator().manual_seed(1)) + 0.5


def test_all_that_is_measured_is_as_defined() -> None:
    saes, x = seeds(), rows()
    result = measure_stability(saes, x.split(128))
    dead = torch.arange(24) == 23
    stability = latent_stability([sae.W_dec * ~dead[:, None] for sae in saes])
    assert (result.rows, result.d_in, result.names) == (500, 10, ("0", "1", "2"))
    for place, (sae, seed) in enumerate(zip(saes, result.seeds, strict=True)):
        dense = sae.encode(x).to_dense()
        assert torch.equal(seed.firings, (dense > 0).sum(dim=0))
        torch.testing.assert_close(
            result.stability()[place], stability.shares[place], rtol=0, atol=0, equal_nan=True
        )
        assert torch.equal(seed.stable, stability.shares[place][:, 2] >= 0.5)
        assert seed.dead == 1 and not seed.alive[-1]
    means = [shares[:-1, 2].mean() for shares in stability.shares]
    assert result.mean_stability()[2].mean == pytest.approx(float(torch.stack(means).mean()))


def test_a_latent_that_never_fires_is_no_feature_that_is_found_again() -> None:
    one, two = seeds(2)
    two.b_enc.data[:4] = -100
    result = measure_stability([one, two], [rows()], cut=Cut(0.9))
    assert result.seeds[0].stable[:8].tolist() == [False] * 4 + [True] * 4
    assert result.seeds[1].similarity["cosine"][:4].isnan().all()
    shares = result.reconstruction[0]
    alone = reconstruction_shares(one, rows(), result.seeds[0].stable)
    assert shares == alone and shares.latents[0] == int(result.seeds[0].stable.sum())


def test_where_no_latent_of_a_seed_fires_nothing_is_found_and_nothing_fails(tmp_path: Path) -> None:
    one, two = seeds(2)
    two.b_enc.data[:] = -100
    result = measure_stability([one, two], [rows()])
    assert result.seeds[1].dead == 24 and not result.seeds[0].stable.any()
    assert result.curve().latents == () and result.mean_stability()[0].seeds == 0
    result.save(tmp_path)
    assert StabilityResult.load(tmp_path).reconstruction[1].latents == (0, 0)


def test_activations_are_compared_over_the_rows() -> None:
    saes, x = seeds(), rows()
    result = measure_stability(saes, x.split(77))
    fired = [sae.encode(x).to_dense() for sae in saes]
    for s, seed in enumerate(result.seeds):
        for column, t in enumerate(other for other in range(3) if other != s):
            mine, theirs = (fired[place].double() for place in (s, t))
            both = (mine > 0).double().T @ (theirs > 0).double()
            union = (mine > 0).sum(0)[:, None] + (theirs > 0).sum(0) - both
            expected = (both / union).nan_to_num(-1).amax(dim=1)
            found = seed.similarity["iou"][:, column]
            torch.testing.assert_close(found[:-1], expected[:-1])
            assert found[-1].isnan()
            r = torch.corrcoef(torch.cat([mine, theirs], dim=1).T)[:24, 24:]
            torch.testing.assert_close(
                seed.similarity["correlation"][:-1, column], r.nan_to_num(-1).amax(dim=1)[:-1]
            )


def test_shuffled_rows_tell_what_activations_share_by_chance() -> None:
    saes, x = seeds(2), rows()
    twins = [saes[0], saes[0]]
    found = measure_stability(twins, [x], thresholds=(0.7, 0.9))
    for measure in ("iou", "correlation"):
        assert [each.mean for each in found.mean_stability(measure)] == [1, 1]
    assert set(found.shuffled) == {"iou", "correlation"}
    assert found.shuffled["correlation"].mean == found.shuffled["iou"].mean == (0, 0)
    # Half of these fire on nearly every row, and so together; the others on one row.
    always = torch.ones(500, 10)
    constant = measure_stability(twins, [torch.cat([x[:1], always])], thresholds=(0.7, 0.9))
    assert constant.shuffled["iou"].mean[1] == 0.5
    assert measure_stability(twins, [x], co_firing=False).shuffled == {}


@pytest.mark.parametrize("normalization", ["variance", "layer_norm"])
def test_either_set_is_ablated_from_the_reconstruction(normalization: str) -> None:
    (sae, *_), x = seeds(normalization=normalization), rows()
    sae.initialize_(x)
    stable = torch.arange(24) < 8
    found = reconstruction_shares(sae, x, stable)
    code = sae.encode(x)
    for fit, left_out in (
        (found.full, torch.zeros(24, dtype=torch.bool)),
        (found.without_stable, stable),
        (found.without_unstable, ~stable),
    ):
        values = code.values * ~left_out[code.indices]
        x_hat = sae.decode(SparseCode(values, code.indices, 24, code.statistics))
        assert fit.r2 == pytest.approx(float(r2(x_hat=x_hat, x=x)))
        centred = x_hat + (x - x_hat).mean(dim=0)
        assert fit.explained == pytest.approx(float(r2(x_hat=centred, x=x)))
    lost = [found.full.explained - each.explained for each in found[1:3]]
    dense = code.to_dense() > 0
    assert found.firings == (int(dense[:, :8].sum()), int(dense[:, 8:].sum()))
    assert found.latents == (8, 15)
    assert found.stable.share == pytest.approx(lost[0] / sum(lost))
    assert found.stable.share + found.unstable.share == pytest.approx(1)
    assert found.stable.per_latent == pytest.approx(found.stable.share / (8 / 23))
    assert found.unstable.per_firing == pytest.approx(
        found.unstable.share / (found.firings[1] / sum(found.firings))
    )


def test_the_pass_gives_the_shares_of_each_alone() -> None:
    saes, x = seeds(), rows()
    result = measure_stability(saes, x.split(100), co_firing=False)
    for sae, seed, shares in zip(saes, result.seeds, result.reconstruction, strict=True):
        alone = reconstruction_shares(sae, x, seed.stable)
        assert alone.latents == shares.latents and alone.firings == shares.firings
        torch.testing.assert_close(torch.tensor(alone[0]), torch.tensor(shares[0]))
    found = [each.stable.share for each in result.reconstruction]
    mean = statistics.fmean(each for each in found if math.isfinite(each))
    assert result.shares()["stable"]["share"].mean == pytest.approx(mean)


def test_the_data_are_read_once() -> None:
    def once() -> Iterator[Tensor]:
        yield from rows().split(100)

    assert measure_stability(seeds(), once()).rows == 500


def test_frequency_and_columns_are_compared_between_the_sets() -> None:
    saes = seeds()
    ms = [torch.arange(24.0).where(torch.arange(24) != 0, torch.nan) for _ in saes]
    result = measure_stability(saes, rows().split(100), columns={"ms": ms}, co_firing=False)
    found = result.differences()
    assert list(found) == ["frequency", "ms"]
    means = [
        float(values[seed.stable & seed.alive].nanmean())
        for values, seed in zip(ms, result.seeds, strict=True)
    ]
    assert found["ms"].stable.mean == pytest.approx(sum(means) / 3)
    assert found["ms"].difference.mean == pytest.approx(
        found["ms"].stable.mean - found["ms"].unstable.mean
    )


def test_the_curve_counts_every_latent_that_fires() -> None:
    result = measure_stability(seeds(), rows().split(100), co_firing=False)
    curve = result.curve()
    assert sum(curve.latents) == sum(int(seed.alive.sum()) for seed in result.seeds)
    frequency = torch.cat([result.frequency(place) for place in range(3)])
    shares = torch.cat(result.stability())
    for place, (low, high) in enumerate(zip(curve.low, curve.high, strict=True)):
        inside = (frequency >= low) & (frequency < high)
        assert int(inside.sum()) == curve.latents[place]
        if curve.latents[place]:
            mean = float(shares[inside, 4].mean())
            assert curve.stability[4][place] == pytest.approx(mean)


def test_the_spans_of_unstable_latents_that_fire_are_compared() -> None:
    result = measure_stability(seeds(), rows().split(100), co_firing=False, draws=5)
    unstable = result.unstable
    assert unstable.counts == tuple(int((seed.alive & ~seed.stable).sum()) for seed in result.seeds)
    assert [pair.seeds for pair in unstable.pairs] == [(0, 1), (0, 2), (1, 2)]
    assert unstable.pairs[0].data is not None and unstable.overlap.seeds == 3


def test_what_unstable_latents_write_is_weighted_by_their_activations() -> None:
    saes, x = seeds(), rows()
    result = measure_stability(saes, x.split(100), co_firing=False, draws=5)
    groups = []
    for sae, seed in zip(saes, result.seeds, strict=True):
        size = sae.encode(x).to_dense().double().square().mean(dim=0).sqrt()
        groups.append((size[:, None] * sae.W_dec)[seed.alive & ~seed.stable])
    expected = compare_spans(groups, energy=0.9, draws=5)
    assert result.weighted.ranks == expected.ranks
    assert result.weighted.effective_ranks == pytest.approx(expected.effective_ranks)
    for pair, other in zip(result.weighted.pairs, expected.pairs, strict=True):
        assert pair.overlap == pytest.approx(other.overlap)


def test_without_an_unstable_latent_there_is_no_span_and_no_share() -> None:
    sae = seeds()[0]
    result = measure_stability([sae, sae], [rows()], co_firing=False)
    assert result.unstable.pairs == () and result.unstable.counts == (0, 0)
    assert result.reconstruction[0].unstable.lost == pytest.approx(0)
    assert result.shares()["unstable"]["per_latent"].seeds == 0
    assert isinstance(result, StabilityResult) and result.summary()["latents"]["dead"] == [1, 1]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"draws": 0}, "draws = 0, expected at least 2"),
        ({"energy": 2.0}, "energy = 2.0, expected a share"),
        ({"thresholds": []}, r"thresholds are \[\], expected some"),
        ({"cut": Cut(0.75)}, "cut.threshold = 0.75, expected one of thresholds"),
    ],
)
def test_settings_are_refused_before_a_row_is_read(settings: dict[str, Any], told: str) -> None:
    def unread() -> Iterator[Tensor]:
        raise AssertionError("a row was read")
        yield

    with pytest.raises(LightsaeError, match=told):
        measure_stability(seeds(2), unread(), **settings)


def test_batches_may_be_of_any_size() -> None:
    saes, x = [each.double() for each in seeds(2)], rows().double()
    one, other = (measure_stability(saes, parts) for parts in ([x], [x[:0], *x.split(1), x[:0]]))
    for mine, theirs in zip(one.seeds, other.seeds, strict=True):
        assert torch.equal(mine.firings, theirs.firings) and torch.equal(mine.stable, theirs.stable)
        for name, values in mine.similarity.items():
            torch.testing.assert_close(values, theirs.similarity[name], equal_nan=True)
    for mine, theirs in zip(one.reconstruction, other.reconstruction, strict=True):
        torch.testing.assert_close(torch.tensor(mine[:3]), torch.tensor(theirs[:3]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("selection", [BatchTopK(3), JumpReLU(3)])
def test_other_dtypes_and_selections_are_measured(dtype: torch.dtype, selection: Any) -> None:
    saes = [
        SparseAutoencoder(10, d_sae, copy.deepcopy(selection), normalization="unit_norm").to(dtype)
        for d_sae in (6, 24)
    ]
    result = measure_stability(saes, [rows()])
    assert [len(each.firings) for each in result.seeds] == [6, 24]
    assert all(math.isfinite(each.full.r2) for each in result.reconstruction)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"saes": seeds(1)}, "saes holds 1, expected two seeds or more"),
        ({"names": ["a"]}, "names holds 1, expected one of 2 each"),
        ({"saes": [*seeds(1), SparseAutoencoder(4, 8, TopK(2))]}, "1 has d_in = 4, 0 10"),
        ({"saes": [*seeds(1), Transcoder(10, 8, TopK(2), d_out=10)]}, "1 is a transcoder"),
        ({"saes": [*seeds(1), torch.nn.Linear(10, 8)]}, "1 is a Linear, expected a Sparse"),
        ({"batches": []}, "batches have no rows"),
        ({"batches": [torch.ones(3, 4)]}, r"a batch is \[3, 4\], expected \[B, d_in = 10\]"),
        ({"batches": ["rows"]}, "a batch is str, expected"),
        ({"batches": [torch.full((3, 10), torch.nan)]}, "after row 0 have NaN or infinite values"),
        ({"columns": {"a/b": [torch.ones(24)] * 2}}, "columns has 'a/b', expected a name without"),
        ({"columns": {"ms": [[1.0]] * 2}}, "columns 'ms' is a list, expected a tensor"),
        ({"columns": {"ms": [torch.ones(24)]}}, r"columns 'ms' has shapes \[\[24\]\], expected"),
    ],
)
def test_other_things_are_refused(change: dict[str, object], told: str) -> None:
    given = {"saes": seeds(2), "batches": [rows(20)], **change}
    with pytest.raises(LightsaeError, match=told):
        measure_stability(given.pop("saes"), given.pop("batches"), **given)  # type: ignore[arg-type]
