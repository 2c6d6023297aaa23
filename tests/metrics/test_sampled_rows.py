import torch

from lightsae.metrics.sampled_rows import row_ranks


def test_ranks_are_distinct_and_spread_evenly() -> None:
    images, tokens = torch.arange(4000).repeat_interleave(50), torch.arange(50).repeat(4000)
    ranks = row_ranks(images, tokens)
    assert ranks.min() >= 0
    assert len(ranks.unique()) == len(ranks)
    counts = torch.bincount(ranks >> 57, minlength=64)
    expected = len(ranks) / 64
    # Chi-square of 63 degrees of freedom: 103 is its 0.999 quantile.
    assert ((counts - expected) ** 2 / expected).sum() < 103


def test_each_token_has_the_same_chance_in_every_image() -> None:
    images, tokens = torch.arange(2000).repeat_interleave(20), torch.arange(20).repeat(2000)
    chosen = row_ranks(images, tokens).sort().indices[:8000]
    counts = torch.bincount(tokens[chosen], minlength=20)
    # 400 each, standard deviation 18.
    assert counts.min() > 320
    assert counts.max() < 480
