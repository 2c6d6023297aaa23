"""Codes less the mean of their sequence."""

import pytest
import torch

from lightsae.dictionaries import distinctive_latents, subtract_sequence_mean
from lightsae.errors import LightsaeError
from lightsae.sae import SparseCode

D_SAE = 9


def ragged(dtype: torch.dtype = torch.float32) -> tuple[SparseCode, torch.Tensor]:
    """Rows of three sequences in any order; some places are unused."""
    indices = torch.rand(20, D_SAE).argsort(dim=1)[:, :3]
    values = torch.rand(20, 3, dtype=dtype).sub(0.3).relu()
    values[4] = 0
    return SparseCode(values, indices, D_SAE), torch.randint(0, 3, (20,)) * 7 - 7


def definition(code: SparseCode, sequence: torch.Tensor) -> torch.Tensor:
    dense = code.to_dense().double()
    means = [dense[sequence == number].mean(dim=0) for number in sequence.tolist()]
    return dense - torch.stack(means)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_are_the_dense_difference(dtype: torch.dtype) -> None:
    code, sequence = ragged(dtype)
    found = torch.zeros(20, D_SAE, dtype=dtype)
    numbers = []
    for number, rows, latents, values in subtract_sequence_mean(code, sequence):
        numbers.append(number)
        assert (sequence[rows] == number).all() and values.dtype == dtype
        assert latents.tolist() == sorted(set(latents.tolist()))
        found[rows.unsqueeze(1), latents] = values
    assert numbers == sorted(set(sequence.tolist()))
    torch.testing.assert_close(found.double(), definition(code, sequence), atol=1e-7, rtol=0)


@pytest.mark.parametrize("n", [1, 2, 40])
def test_distinctive_latents_are_the_largest_of_the_difference(n: int) -> None:
    code, sequence = ragged(torch.float64)
    found = distinctive_latents(code, sequence, n)
    assert found.latents.shape == (20, n)
    for row, difference in enumerate(definition(code, sequence)):
        expected = [
            latent
            for latent in difference.argsort(descending=True, stable=True).tolist()
            if difference[latent] > 1e-12
        ][:n]
        assert found.latents[row].tolist() == expected + [-1] * (n - len(expected))
        torch.testing.assert_close(found.values[row, : len(expected)], difference[expected])
        assert (found.values[row, len(expected) :] == 0).all()


def test_what_a_whole_sequence_has_is_not_distinctive() -> None:
    code = SparseCode(torch.ones(4, 1), torch.full((4, 1), 2), D_SAE)
    found = distinctive_latents(code, torch.zeros(4, dtype=torch.long), 1)
    assert (found.latents == -1).all()


def test_a_row_alone_is_its_own_mean() -> None:
    code = SparseCode(torch.ones(1, 2), torch.tensor([[1, 3]]), D_SAE)
    [one] = subtract_sequence_mean(code, torch.tensor([5]))
    assert one.latents.tolist() == [1, 3] and one.values.tolist() == [[0, 0]]


def test_no_rows_are_no_sequences() -> None:
    code = SparseCode(torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.long), D_SAE)
    none = torch.zeros(0, dtype=torch.long)
    assert list(subtract_sequence_mean(code, none)) == []
    assert distinctive_latents(code, none).latents.shape == (0, 5)


def test_what_does_not_fit_is_refused() -> None:
    code, sequence = ragged()
    with pytest.raises(LightsaeError, match=r"sequence is \[3\], expected \[rows = 20\]"):
        list(subtract_sequence_mean(code, sequence[:3]))
    with pytest.raises(LightsaeError, match="expected integers"):
        list(subtract_sequence_mean(code, sequence.float()))
    with pytest.raises(LightsaeError, match="n is 0"):
        distinctive_latents(code, sequence, 0)
