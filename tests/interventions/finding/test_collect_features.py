import numpy as np
import pytest
import torch
from torch import nn

from lightsae.errors import LightsaeError
from lightsae.interventions import collect_features

from ..hooks.models import Tokens, random_sae

D_SAE = 24


def case() -> tuple[Tokens, dict, torch.Tensor]:
    torch.manual_seed(0)
    return Tokens().eval(), {"layer": random_sae(8, D_SAE, 4)}, torch.randn(7, 5, 6)


def dense_codes(model, saes, x) -> torch.Tensor:
    hidden = model.layer(x)
    return saes["layer"].encode(hidden.reshape(-1, 8)).to_dense().reshape(*hidden.shape[:2], -1)


def mean_nonzero(code: torch.Tensor) -> torch.Tensor:
    return code.sum(1) / (code > 0).sum(1).clamp(min=1)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean_nonzero", mean_nonzero),
        ("mean", lambda code: code.mean(1)),
        ("max", lambda code: code.amax(1)),
        ("none", lambda code: code.flatten(0, 1)),
    ],
)
@torch.no_grad()
def test_pooling_is_as_defined(pooling, expected):
    model, saes, x = case()
    found = collect_features(model, saes, [x[:4], {"x": x[4:]}], pooling=pooling)["layer"]
    assert found.codes.format == "csr" and found.codes.dtype == np.float32
    wanted = expected(dense_codes(model, saes, x)).numpy()
    np.testing.assert_allclose(found.codes.toarray(), wanted, rtol=1e-5)
    assert found.codes.nnz == np.count_nonzero(wanted)
    hidden = model.layer(x)
    raw = hidden.flatten(0, 1) if pooling == "none" else hidden.mean(1)
    np.testing.assert_allclose(found.activations, raw.numpy(), rtol=1e-5)
    assert found.activations.dtype == np.float32


def test_only_a_part_of_the_model_may_run():
    model, saes, x = case()
    seen = collect_features(model, saes, [(x, "name")], forward=lambda m, batch: m.layer(batch[0]))
    assert seen["layer"].codes.shape == (7, D_SAE)


def test_a_row_a_sample_without_places_and_places_of_a_map():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Flatten(), nn.LazyLinear(6))
    x = torch.randn(3, 2, 5, 5)
    model(x)
    saes = {"0": random_sae(8, D_SAE, 4), "2": random_sae(6, 12, 2)}
    found = collect_features(model, saes, [x], pooling="mean")
    hidden = model[0](x).detach()
    np.testing.assert_allclose(found["0"].activations, hidden.mean((2, 3)).numpy(), rtol=1e-5)
    np.testing.assert_allclose(found["2"].activations, model(x).detach().numpy(), rtol=1e-6)


def test_samples_where_nothing_fires_have_a_row():
    model, saes, x = case()
    with torch.no_grad():
        saes["layer"].b_enc.fill_(-1e3)
    found = collect_features(model, saes, [x])["layer"]
    assert found.codes.shape == (7, D_SAE) and found.codes.nnz == 0


def test_mistakes_are_told_in_a_line():
    model, saes, x = case()
    with pytest.raises(LightsaeError, match=r"^batches is empty, expected one batch or more$"):
        collect_features(model, saes, [])
    with pytest.raises(LightsaeError, match=r"^pooling is 'sum', expected one of mean_nonzero,"):
        collect_features(model, saes, [x], pooling="sum")
    with pytest.raises(LightsaeError, match=r"^a batch is a list, expected a tensor or a mapping"):
        collect_features(model, saes, [[x, x]])
