"""The threshold of BatchTopK keeps up with activations that shrink in training."""

import pytest
import torch

from lightsae.sae import BatchTopK


def test_the_threshold_of_a_short_run_is_not_that_of_its_first_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    rule, encoder = BatchTopK(2), (torch.eye(16), torch.zeros(16), torch.zeros(16))

    def exponential(rows: int) -> torch.Tensor:
        return -torch.rand(rows, 16, generator=generator).log()

    shrinking = 0.5 ** (1 / 200)  # to half within five epochs of 40 batches
    for step in range(200):
        a = shrinking**step * exponential(64)
        rule.encode(a.requires_grad_(), encoder)
    new = shrinking**200 * exponential(2000)
    l0 = (rule.inference().encode(new, encoder).values > 0).sum() / 2000
    assert float(l0) == pytest.approx(2, rel=0.2)
