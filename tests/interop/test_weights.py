"""Weights of other formats become an autoencoder of ours."""

from pathlib import Path

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interop.translation.provenance import origin
from lightsae.interop.translation.rules import UNKNOWN_THRESHOLD
from lightsae.interop.translation.weights import Weights, autoencoder
from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder, TopK


def test_an_autoencoder_has_memory_of_its_own_and_the_widest_dtype() -> None:
    rows = torch.ones(4, 2, dtype=torch.float16)
    weights = Weights(rows, torch.ones(4), rows, torch.zeros(2))
    sae = autoencoder(weights, TopK(2), provenance=origin("none", {}))
    rows.zero_()
    assert sae.W_enc.dtype == torch.float32 and bool((sae.W_enc == 1).all())
    assert all(parameter.requires_grad for parameter in sae.parameters())
    sae(torch.ones(3, 2)).sum().backward()


@pytest.mark.parametrize("rule", [BatchTopK(2), JumpReLU(2)])
def test_a_rule_with_a_threshold_can_be_trained_further(rule: BatchTopK | JumpReLU) -> None:
    torch.manual_seed(0)
    rows = torch.randn(4, 2)
    threshold = torch.tensor(0.1).expand(4) if isinstance(rule, JumpReLU) else torch.tensor(0.1)
    weights = Weights(rows, torch.zeros(4), rows, torch.zeros(2))
    sae = autoencoder(weights, rule, threshold=threshold, provenance=origin("none", {}))
    assert sae.selection is not rule
    assert not any(tensor.is_meta for tensor in sae.state_dict().values())
    sae.encode_residual(torch.randn(8, 2))[1].error.sum().backward()
    assert sae.W_enc.grad is not None


def test_a_k_beyond_the_dictionary_is_refused() -> None:
    rows = torch.ones(4, 2)
    with pytest.raises(LightsaeError, match="k = 9 is larger than d_sae = 4"):
        weights = Weights(rows, torch.ones(4), rows, torch.zeros(2))
        autoencoder(weights, TopK(9), provenance={})


def test_one_whose_threshold_is_not_known_can_be_saved(tmp_path: Path) -> None:
    rows = torch.ones(4, 2)
    weights = Weights(rows, torch.ones(4), rows, torch.zeros(2))
    sae = autoencoder(weights, BatchTopK(2), threshold=UNKNOWN_THRESHOLD, provenance={})
    sae.save(tmp_path)
    assert SparseAutoencoder.load(tmp_path).selection.threshold == BatchTopK(2).threshold  # type: ignore[attr-defined]
