"""Operations against a training step that counts its own."""

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.planning.scaling import affordable_latents, flops_per_token


def counted_step(d_in: int, d_sae: int, k: int) -> int:
    """Multiplications and additions of one row's step, loop by loop."""
    x, W = torch.randn(d_in), torch.randn(d_sae, d_in)
    operations = 0
    a = torch.zeros(d_sae)
    for latent in range(d_sae):
        for place in range(d_in):
            a[latent] += W[latent, place] * x[place]
            operations += 2
    chosen = a.topk(k).indices.tolist()
    residual, gradient = x.clone(), torch.zeros(2, d_sae, d_in)
    for latent in chosen:  # the reconstruction
        for place in range(d_in):
            residual[place] -= a[latent] * W[latent, place]
            operations += 2
    for latent in chosen:
        of_value = 0.0
        for place in range(d_in):  # the gradient of the value
            of_value += float(residual[place] * W[latent, place])
            operations += 2
        for place in range(d_in):  # of its rows of W_dec and W_enc
            gradient[0, latent, place] += residual[place] * a[latent]
            gradient[1, latent, place] += of_value * x[place]
            operations += 4
    return operations


@pytest.mark.parametrize(("d_in", "d_sae", "k"), [(3, 7, 2), (5, 11, 11), (4, 4, 1)])
def test_the_formula_is_what_the_loops_count(d_in: int, d_sae: int, k: int) -> None:
    assert flops_per_token(d_in, d_sae, k) == counted_step(d_in, d_sae, k)


def test_a_larger_code_costs_its_own_latents() -> None:
    plain, wide = flops_per_token(64, 512, 8), flops_per_token(64, 512, 8, decoded=32)
    assert wide - plain == 8 * 64 * (32 - 8)


def test_what_is_affordable_costs_the_budget() -> None:
    latents = affordable_latents(64, 8, 1000, 1e9, decoded=32)
    per_row = 2 * 64 * latents + 8 * 64 * 32
    assert 1000 * per_row == pytest.approx(1e9)
    assert affordable_latents(64, 8, 1e9, 1e9) < 1


@pytest.mark.parametrize("name", ["d_in", "d_sae", "k", "decoded"])
def test_sizes_below_one_are_refused(name: str) -> None:
    given = {"d_in": 4, "d_sae": 8, "k": 2, "decoded": 2, name: 0}
    with pytest.raises(LightsaeError, match=f"{name} is 0, expected at least 1"):
        flops_per_token(**given)
