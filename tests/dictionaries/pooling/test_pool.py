"""Several autoencoders as one."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch

from lightsae.dictionaries import pool
from lightsae.errors import LightsaeError
from lightsae.sae import BatchTopK, GroupMax, JumpReLU, SparseAutoencoder, TopK, Transcoder


def trained(seed: int, d_sae: int = 16, **options: object) -> SparseAutoencoder:
    """One with biases of its own and the scale of all."""
    torch.manual_seed(seed)
    sae = SparseAutoencoder(5, d_sae, **({"selection": TopK(3)} | options))  # type: ignore[arg-type]
    with torch.no_grad():
        sae.scale.fill_(2.0)
        sae.b_dec.normal_()
        sae.b_enc.normal_()
        sae.W_enc.add_(0.3 * torch.randn_like(sae.W_enc))
    return sae


ROWS = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))


def test_every_latent_keeps_its_directions_and_pre_activations() -> None:
    saes = [trained(seed, d_sae=size) for seed, size in ((0, 16), (1, 12), (2, 16))]
    pooled = pool(saes, ROWS.split(64), cosine=0.95, iou=0.9)
    told = pooled.provenance["pooled"]
    assert pooled.d_sae == len(told["latent"]) > 20
    assert (pooled.scale, pooled.selection.k) == (2, 3)
    torch.testing.assert_close(pooled.b_dec, sum(sae.b_dec for sae in saes) / 3)
    before = [sae.pre_activations(ROWS) for sae in saes]
    found = pooled.pre_activations(ROWS)
    for place, (seed, latent) in enumerate(zip(told["dictionary"], told["latent"], strict=True)):
        torch.testing.assert_close(found[:, place], before[seed][:, latent], atol=1e-5, rtol=1e-5)
        assert torch.equal(pooled.W_dec[place], saes[seed].W_dec[latent])


def test_without_b_dec_at_the_input_pre_activations_stay_too() -> None:
    saes = [trained(seed, apply_b_dec_to_input=False) for seed in (0, 1)]
    pooled = pool(saes, [ROWS])
    told = pooled.provenance["pooled"]
    seed, latent = told["dictionary"][0], told["latent"][0]
    expected = saes[seed].pre_activations(ROWS)[:, latent]
    torch.testing.assert_close(pooled.pre_activations(ROWS)[:, 0], expected)


def test_copies_of_one_autoencoder_are_that_autoencoder() -> None:
    first = trained(0)
    again = trained(0)
    pooled = pool([first, again], [ROWS], cosine=0.999, iou=2)
    told = pooled.provenance["pooled"]
    fires = first.encode(ROWS).to_dense().any(dim=0)
    assert set(told["dictionary"]) == {0} and set(told["stability"]) == {1.0}
    assert sorted(told["latent"]) == fires.nonzero()[:, 0].tolist()
    torch.testing.assert_close(pooled(ROWS), first(ROWS))


def test_cut_to_a_size_the_most_stable_stay() -> None:
    first, second = trained(0), trained(1)
    with torch.no_grad():
        second.W_dec[4:8] = first.W_dec[:4]
    pooled = pool([first, second], [ROWS], d_sae=3)
    told = pooled.provenance["pooled"]
    assert pooled.d_sae == 3 and min(told["stability"]) > 0.5
    assert told["autoencoders"] == ["autoencoder 0", "autoencoder 1"] and told["rows"] == 200


def test_it_is_saved_with_where_its_latents_come_from(tmp_path: object) -> None:
    pooled = pool([trained(0), trained(1)], [ROWS], names=["runs/a", "runs/b"])
    pooled.save(str(tmp_path))
    found = SparseAutoencoder.load(str(tmp_path))
    assert found.provenance == pooled.provenance
    assert found.provenance["pooled"]["autoencoders"] == ["runs/a", "runs/b"]


def test_a_rule_of_whole_batches_learns_its_threshold_anew() -> None:
    saes = [trained(seed, selection=BatchTopK(3)) for seed in (0, 1)]
    with torch.no_grad():
        saes[0].selection.threshold.fill_(1.0)  # type: ignore[attr-defined]
    rule = pool(saes, [ROWS]).selection
    assert isinstance(rule, BatchTopK) and rule.k == 3 and rule.threshold == -1


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (lambda: SparseAutoencoder(6, 16, TopK(3)), "autoencoder 1 has d_in 6, autoencoder 0 h"),
        (lambda: trained(1, normalization="unit_norm"), "1 has normalization unit_norm, auto"),
        (lambda: trained(1, selection=TopK(4)), "1 has selection TopK k = 4, .* TopK k = 3"),
        (lambda: trained(1, selection=GroupMax(4)), "1 selects by GroupMax, which knows latents"),
        (lambda: trained(1, selection=JumpReLU(3)), "1 selects by JumpReLU"),
        (lambda: Transcoder(5, 16, TopK(3), d_out=5), "1 is a transcoder, expected an autoenc"),
        (lambda: trained(1, apply_b_dec_to_input=False), "apply_b_dec_to_input False"),
        (lambda: SparseAutoencoder(5, 16, TopK(3)), "1 has scale 1, .* not trained on the same"),
    ],
)
def test_what_cannot_stand_in_one_dictionary_is_refused(
    other: Callable[[], SparseAutoencoder], told: str
) -> None:
    with pytest.raises(LightsaeError, match=told):
        pool([trained(0), other()], [ROWS])


def test_in_bfloat16_duplicates_and_biases_are_told_in_more_digits() -> None:
    saes = [trained(seed).to(torch.bfloat16) for seed in (0, 1, 2)]
    pooled, told = pool(saes, [ROWS], iou=2), [deepcopy(sae).double() for sae in saes]
    of_each = pooled.provenance["pooled"]
    assert pooled.W_enc.dtype == torch.bfloat16
    expected = [
        told[seed].b_enc[latent] + told[seed].W_enc[latent] @ (pooled.b_dec - told[seed].b_dec)
        for seed, latent in zip(of_each["dictionary"], of_each["latent"], strict=True)
    ]
    torch.testing.assert_close(pooled.b_enc, torch.stack(expected).bfloat16(), rtol=0, atol=0)
    unit = torch.nn.functional.normalize(pooled.W_dec.double(), dim=1)
    assert (unit @ unit.T).fill_diagonal_(0).max() < 0.7 + 1e-6


def test_fewer_latents_than_a_row_selects_are_refused_before_rows_are_read() -> None:
    with pytest.raises(LightsaeError, match="d_sae is 2, the autoencoders select k = 3 latents"):
        pool([trained(0), trained(1)], iter(()), d_sae=2)


def test_one_alone_no_rows_and_too_few_latents_are_refused() -> None:
    saes = [trained(0), trained(1)]
    with pytest.raises(LightsaeError, match="1 autoencoders, expected at least two to pool"):
        pool(saes[:1], [ROWS])
    with pytest.raises(LightsaeError, match="batches: there are no rows"):
        pool(saes, [])
    with pytest.raises(LightsaeError, match=r"d_sae is 99, the 2 autoencoders have \d+ unique"):
        pool(saes, [ROWS], d_sae=99)
