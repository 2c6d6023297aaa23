"""What random dictionaries stand for, and what the user hears who gives something else."""

import pytest
import torch
from torch import Tensor

from lightsae.dictionaries import (
    latent_stability,
    random_stability,
    reconstruction_shares,
    stability_curve,
)
from lightsae.errors import LightsaeError
from lightsae.sae import SparseAutoencoder, TopK, Transcoder


def directions(n: int) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(n))


def test_a_random_dictionary_is_as_large_as_the_one_it_stands_for() -> None:
    few, many = directions(3), directions(3000)
    found = random_stability([few, many], (0.8,), draws=20)
    # Of the few among thousands nearly all have a neighbour, of the many among three hardly one.
    assert found.high[0] > 0.9 and found.low[0] < 0.1


def test_of_that_one_only_the_latents_that_count_are_stood_for() -> None:
    few, many = directions(3), directions(3000)
    counted = [torch.ones(3, dtype=torch.bool), torch.arange(3000) < 3]
    found = random_stability([few, many], (0.8,), counted=counted, draws=20)
    assert found.mean[0] < 0.1


def test_the_first_draw_is_no_fresh_autoencoder_of_the_same_seed() -> None:
    torch.manual_seed(0)
    sae = SparseAutoencoder(32, 64, TopK(2))
    assert random_stability([sae.W_dec, sae.W_dec], (0.9,)).high == (0.0,)


SAE = SparseAutoencoder(6, 4, TopK(2))
MASK = torch.ones(4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: random_stability([]), "decoders holds 0, expected one or more"),
        (lambda: latent_stability([[1.0], [1.0]]), r"decoders\[0\] is a list, expected a tensor"),
        (
            lambda: reconstruction_shares(Transcoder(6, 4, TopK(2), d_out=6), directions(3), MASK),
            "sae is a transcoder, expected an autoencoder",
        ),
        (lambda: reconstruction_shares(SAE, [[1.0]], MASK), "rows is a list, expected a tensor"),
        (lambda: reconstruction_shares(SAE, directions(3), [True]), "stable is a list, expected"),
        (
            lambda: stability_curve(torch.tensor([3.0]), torch.ones(1, 1)),
            "frequency has values above 1, expected shares of rows",
        ),
    ],
)
def test_other_things_are_refused(call, told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        call()


def test_without_rows_there_are_no_shares() -> None:
    found = reconstruction_shares(SAE, directions(3)[:0], MASK)
    assert found.latents == (0, 0) and torch.tensor(found.full).isnan().all()
