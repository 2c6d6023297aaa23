import pytest
import torch
from torch import nn

from lightsae.errors import LightsaeError
from lightsae.interventions import ZeroAblate, ablation_effects, attach

from ..hooks.models import MaskedTokens, Tokens, ragged, random_sae
from .planted import planted, precision


def last(y: torch.Tensor) -> torch.Tensor:
    return y[:, -1, 1]


@pytest.mark.parametrize("latents", [None, [20, 2, 9]])
def test_it_is_what_ablating_one_by_one_gives(latents):
    torch.manual_seed(0)
    model, sae = Tokens().double(), random_sae(8, 24, 4).double()
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    found = ablation_effects(model, "layer", sae, x, last, latents=latents, batch_size=7)
    wanted = range(24) if latents is None else latents
    with torch.no_grad(), attach(model, {"layer": sae}) as attached:
        bare, expected = last(model(x)), []
        for latent in wanted:
            with attached.edit(ZeroAblate([latent]), must_touch=False):
                expected.append(last(model(x)) - bare)
    torch.testing.assert_close(found, torch.stack(expected, dim=1), rtol=1e-9, atol=1e-12)
    assert bool(found.any()) and bool((found == 0).any())


def test_on_a_linear_model_it_is_the_contribution_taken_away():
    case = planted()
    codes = case.codes(8, 3)
    found = ablation_effects(
        case.model, "layer", case.sae, {"x": case.inputs(codes)}, lambda y: y.sum((1, 2))
    )
    torch.testing.assert_close(found, -codes.sum(1) * case.weights, atol=1e-7, rtol=0)
    assert precision(found.abs().mean(0).argsort(descending=True), case.causal) == 1


def test_only_latents_that_fire_are_run():
    class Counting(Tokens):
        samples = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.samples += len(x)
            return super().forward(x)

    torch.manual_seed(0)
    model, sae = Counting(), random_sae(8, 24, 2)
    x = torch.randn(4, 1, 6)
    code = sae.encode(model.layer(x)[:, 0])
    ablation_effects(model, "layer", sae, x, last)
    assert model.samples == 4 + int((code.values > 0).sum())


def test_maps_have_places_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Flatten(), nn.LazyLinear(1))
    x = torch.randn(3, 2, 6, 6)
    model(x)
    found = ablation_effects(model, "0", random_sae(8, 16, 3), x, lambda y: y[:, 0], batch_size=5)
    assert found.shape == (3, 16) and bool(found.any())


def test_mistakes_are_told_in_a_line():
    model, sae, x = Tokens(), random_sae(8, 24, 4), torch.randn(3, 5, 6)
    with pytest.raises(LightsaeError, match=r"^latents must lie in \[0, d_sae = 24\), got 24$"):
        ablation_effects(model, "layer", sae, x, last, latents=[24])
    with pytest.raises(LightsaeError, match=r"^batch_size is 0, expected 1 or more$"):
        ablation_effects(model, "layer", sae, x, last, batch_size=0)
    with pytest.raises(LightsaeError, match=r"^saes: 'layer' has a str, expected a Sparse"):
        ablation_effects(model, "layer", "saes/mine", x, last)
    with pytest.raises(LightsaeError, match=r"laier"):
        ablation_effects(model, "laier", sae, x, last)
    with pytest.raises(LightsaeError, match=r"^output gives \[15\], expected a number for each"):
        ablation_effects(model, "layer", sae, x, lambda y: y[..., 0].flatten())


def test_inputs_without_samples_are_told():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 8)

        def forward(self, size: int) -> torch.Tensor:
            return self.layer(torch.ones(size, 2))

    with pytest.raises(LightsaeError, match=r"^the layer saw 3 samples, no input has as many"):
        ablation_effects(Constant(), "layer", random_sae(8, 24, 4), {"size": 3}, lambda y: y.sum(1))


def test_what_fires_in_padding_alone_is_not_run():
    class Counting(MaskedTokens):
        samples = 0

        def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            self.samples += len(x)
            return super().forward(x, attention_mask)

    torch.manual_seed(1)
    model, sae = Counting().double().eval(), random_sae(8, 24, 4).double()
    padded, alone = ragged()
    found = ablation_effects(model, "layer", sae, padded, lambda y: y[:, 1])
    in_one_batch, model.samples = model.samples, 0
    expected = [ablation_effects(model, "layer", sae, each, lambda y: y[:, 1]) for each in alone]
    torch.testing.assert_close(found, torch.cat(expected))
    assert in_one_batch == model.samples
