"""The threshold that gives an L0 of k over a set of rows, exactly."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.evaluation import calibration
from lightsae.evaluation.calibration import calibrate_
from lightsae.sae import (
    BankTopK,
    BatchTopK,
    GroupMax,
    JumpReLU,
    Selection,
    SparseAutoencoder,
    TopK,
)

D_IN, D_SAE, K, ROWS = 6, 24, 3, 211


def autoencoder(rule: Selection, dtype: torch.dtype = torch.float32) -> SparseAutoencoder:
    torch.manual_seed(0)
    sae = SparseAutoencoder(D_IN, D_SAE, rule).to(dtype)
    if isinstance(sae.selection, JumpReLU):
        sae.selection.threshold.data.uniform_(0.1, 3.0)
    return sae


def rows() -> Tensor:
    return torch.randn(ROWS, D_IN, generator=torch.Generator().manual_seed(1)).double()


def l0(sae: SparseAutoencoder) -> float:
    return float(sae.encode(rows().to(sae.W_enc)).l0().double().mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rule", [BatchTopK(K), JumpReLU(K)], ids=["BatchTopK", "JumpReLU"])
def test_l0_is_k_of_all_rows_together(rule: Selection, dtype: torch.dtype) -> None:
    sae = autoencoder(rule, dtype)
    found = calibrate_(sae, lambda: rows().split(50))
    assert found.rows == ROWS and found.after == l0(sae)
    if dtype == torch.bfloat16:  # many are equal, and dense products round otherwise than fused
        assert found.after == pytest.approx(K, abs=0.1)
    else:
        assert found.after == K


def test_the_threshold_lies_just_below_the_smallest_activation_that_is_to_stay() -> None:
    sae = autoencoder(BatchTopK(K), torch.float64)
    calibrate_(sae, lambda: rows().split(50))
    smallest = sae.pre_activations(rows()).float().flatten().sort(descending=True).values
    threshold = sae.selection.threshold.item()  # type: ignore[attr-defined]
    assert threshold < smallest[K * ROWS - 1] and threshold == pytest.approx(
        smallest[K * ROWS - 1].item(), rel=1e-6
    )
    assert threshold >= smallest[K * ROWS]


def test_thresholds_of_latents_keep_their_proportions() -> None:
    sae = autoencoder(JumpReLU(K))
    before = sae.state_dict()["selection.threshold"].clone()
    calibrate_(sae, lambda: [rows()])
    factor = sae.state_dict()["selection.threshold"] / before
    torch.testing.assert_close(factor, factor[0].expand(D_SAE))
    assert factor[0] != 1


def test_how_batches_are_cut_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = autoencoder(BatchTopK(K)), autoencoder(BatchTopK(K))
    calibrate_(whole, lambda: [rows()])
    monkeypatch.setattr(calibration, "_CELLS", 7 * D_SAE)
    calibrate_(parts, lambda: rows().split(32))
    torch.testing.assert_close(parts.state_dict(), whole.state_dict())


def test_l0_before_is_known_where_there_was_a_threshold() -> None:
    sae = autoencoder(BatchTopK(K))
    assert calibrate_(sae, lambda: [rows()]).before is None
    assert calibrate_(sae, lambda: [rows()]).before == K


def test_where_fewer_are_positive_all_are_active() -> None:
    sae = autoencoder(BatchTopK(D_SAE))
    found = calibrate_(sae, lambda: [rows()])
    assert found.threshold == 0
    positive = (sae.pre_activations(rows().float()) > 0).sum().item()
    assert found.after == positive / ROWS < D_SAE


@pytest.mark.parametrize(
    "rule", [TopK(K), BankTopK(1, 8), GroupMax(K)], ids=lambda rule: type(rule).__name__
)
def test_a_rule_without_a_threshold_is_refused(rule: Selection) -> None:
    name = type(rule).__name__
    with pytest.raises(LightsaeError, match=f"selection {name} has no threshold"):
        calibrate_(autoencoder(rule), lambda: [rows()])


def test_thresholds_of_0_have_no_factor() -> None:
    sae = SparseAutoencoder(D_IN, D_SAE, JumpReLU(K))
    with pytest.raises(LightsaeError, match="all thresholds of the JumpReLU are 0"):
        calibrate_(sae, lambda: [rows()])
    sae.selection.threshold.data[0] = 1.0  # type: ignore[attr-defined]
    with pytest.raises(LightsaeError, match="latents whose threshold is 0 are more than k = 3"):
        calibrate_(sae, lambda: [rows()])


def test_no_rows_are_refused() -> None:
    def nothing() -> Iterator[Any]:
        yield from ()

    with pytest.raises(LightsaeError, match="no rows"):
        calibrate_(autoencoder(BatchTopK(K)), nothing)
