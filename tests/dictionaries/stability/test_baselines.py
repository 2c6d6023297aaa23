"""Random dictionaries in place of other seeds."""

import torch

from lightsae.dictionaries import random_stability
from lightsae.sae import SparseAutoencoder


def test_they_are_not_what_an_autoencoder_of_the_same_seed_starts_as() -> None:
    torch.manual_seed(0)
    sae = SparseAutoencoder(64, 128)
    assert random_stability([sae.W_dec.detach()], (0.7,), seed=0).high == (0.0,)
