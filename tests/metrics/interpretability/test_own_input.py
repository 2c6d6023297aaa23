import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.metrics import OwnInputMonosemanticity, monosemanticity, own_input_monosemanticity
from lightsae.sae import SparseAutoencoder, TopK


def test_the_inputs_are_the_embeddings() -> None:
    torch.manual_seed(0)
    sae, x = SparseAutoencoder(6, 20, TopK(3)).double(), torch.randn(50, 6, dtype=torch.float64)
    code = sae.encode(x)
    own = own_input_monosemanticity(code, x)
    assert torch.equal(own.scores.nan_to_num(), monosemanticity(code, x).scores.nan_to_num())


def test_another_width_is_refused() -> None:
    metric = OwnInputMonosemanticity(d_sae=2, d_in=3)
    with pytest.raises(LightsaeError, match=r"expected \[images, 3\]"):
        metric.update(torch.ones(1, 1), torch.tensor([[0]]), torch.ones(1, 2))
