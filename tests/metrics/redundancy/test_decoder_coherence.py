import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.metrics import DecoderCoherence, decoder_coherence


@pytest.mark.parametrize("d_sae", [2, 255, 256, 257, 1100])
def test_blocks_give_what_all_cosines_at_once_give(d_sae: int) -> None:
    rows = torch.randn(d_sae, 7, generator=torch.Generator().manual_seed(d_sae)).double()
    unit = rows / rows.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T).abs().fill_diagonal_(0)
    coherence = decoder_coherence(rows)
    torch.testing.assert_close(coherence.largest, cosines.max(), rtol=1e-12, atol=0)
    expected = cosines.sum() / (d_sae * (d_sae - 1))
    torch.testing.assert_close(coherence.mean, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(coherence.nearest, cosines.amax(1), rtol=1e-12, atol=0)


def test_orthogonal_and_parallel_rows() -> None:
    assert decoder_coherence(torch.eye(4)).largest == 0
    opposed = decoder_coherence(torch.tensor([[1.0, 2.0], [-2.0, -4.0]]))
    assert opposed.largest.item() == pytest.approx(1)
    assert opposed.mean.item() == pytest.approx(1)


def test_a_row_of_zeros_has_no_direction() -> None:
    coherence = decoder_coherence(torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]))
    assert coherence.nearest.isnan().tolist() == [False, True, False]
    assert coherence.mean.item() == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("rows", [torch.ones(1, 3), torch.zeros(3, 3), torch.zeros(0, 3)])
def test_without_a_pair_there_is_none(rows: torch.Tensor) -> None:
    coherence = decoder_coherence(rows)
    assert coherence.largest.isnan() and coherence.mean.isnan() and coherence.nearest.isnan().all()


def test_rows_are_scaled_before_they_are_compared() -> None:
    rows = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).double()
    scaled = rows * torch.logspace(-100, 100, 20, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(decoder_coherence(scaled).nearest, decoder_coherence(rows).nearest)


def test_what_is_no_decoder_is_named() -> None:
    with pytest.raises(LightsaeError, match=r"W_dec has shape \[3\], expected \[d_sae, d_in\]"):
        decoder_coherence(torch.zeros(3))
    with pytest.raises(LightsaeError, match="W_dec must be finite"):
        decoder_coherence(torch.full((2, 2), torch.nan))
    with pytest.raises(LightsaeError, match="W_dec has 2 rows, expected d_sae = 3"):
        DecoderCoherence(3).update(torch.eye(2))
