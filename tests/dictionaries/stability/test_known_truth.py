"""Seeds trained on synthetic features: latents are found again, or only their subspace is."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from lightsae.dictionaries import (
    Cut,
    Recovery,
    StabilityResult,
    SyntheticFeatures,
    measure_stability,
    recovery,
    synthetic_features,
)
from lightsae.sae import SparseAutoencoder, TopK, objective
from lightsae.training import SAEAdam

STEPS, RATE = 400, 1e-2


class Trained(NamedTuple):
    truth: SyntheticFeatures
    decoders: list[Tensor]
    found: list[Recovery]
    result: StabilityResult


def fitted(x: Tensor, seed: int) -> SparseAutoencoder:
    torch.manual_seed(seed)
    sae = SparseAutoencoder(x.shape[1], 56, TopK(5))
    sae.initialize_(x)
    optimizer = SAEAdam(sae.parameters(), lr=RATE)
    optimizer.keep_unit_rows(sae.W_dec)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * min(1, 3 * (1 - step / STEPS))
        rows = x[torch.randint(len(x), (256,))]
        objective(sae, sae.normalize(rows).x).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return sae.eval()


def train(truth_seed: int = 0) -> Trained:
    truth = synthetic_features(
        48, isolated=24, groups=2, group_rank=6, group_frequency=0.3, seed=truth_seed
    )
    saes = [fitted(truth.sample(10_000).activations, seed) for seed in range(3)]
    held_out = truth.sample(4000, seed=1).activations
    result = measure_stability(
        saes, held_out.split(1000), cut=Cut(0.9), co_firing=False, energy=0.99, draws=10
    )
    decoders = [
        sae.W_dec.detach()[seed.alive] for sae, seed in zip(saes, result.seeds, strict=True)
    ]
    return Trained(truth, decoders, [recovery(each, truth) for each in decoders], result)


@pytest.fixture(scope="module")
def trained() -> Trained:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = train()
    torch.set_num_threads(threads)
    return made


def test_isolated_features_are_recovered_as_latents(trained: Trained) -> None:
    assert min(found.isolated_share for found in trained.found) >= 0.9


def test_low_rank_groups_are_not(trained: Trained) -> None:
    assert max(found.member_share for found in trained.found) <= 0.3


def test_their_subspace_is(trained: Trained) -> None:
    assert min(float(found.overlap.min()) for found in trained.found) >= 0.9


def test_the_latents_of_a_group_are_not_found_in_other_seeds(trained: Trained) -> None:
    for decoder, seed, shares in zip(
        trained.decoders, trained.result.seeds, trained.result.stability(), strict=True
    ):
        at_90 = shares[seed.alive][:, -1]
        inside = (decoder @ trained.truth.bases.mT).square().sum(dim=2) >= 0.5
        isolated = (decoder @ trained.truth.directions.T).amax(dim=1) >= 0.9
        assert at_90[inside.any(dim=0)].mean() <= 0.3
        assert at_90[isolated].mean() >= 0.9


def test_what_the_unstable_latents_write_is_one_subspace_in_all_seeds(trained: Trained) -> None:
    spans = trained.result.weighted
    assert spans.overlap.mean >= 0.9
    assert spans.beyond("random").low > 0.2 and spans.beyond("data").low > 0.2
    # Both groups, and hardly more.
    assert all(8 <= rank <= 13 for rank in spans.effective_ranks)


def test_stable_latents_carry_more_than_their_share(trained: Trained) -> None:
    stable = trained.result.shares()["stable"]
    assert stable["per_latent"].low > 1
    assert stable["per_firing"].mean > 1
