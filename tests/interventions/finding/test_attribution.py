import pytest
import torch
from torch import nn

from lightsae.errors import LightsaeError
from lightsae.interventions import ZeroAblate, attach, attribution
from lightsae.sae import SparseAutoencoder, TopK

from ..hooks.models import Tokens, random_sae
from .planted import planted, precision

METHODS = ["activation_x_gradient", "integrated_gradients"]


@pytest.mark.parametrize("method", METHODS)
def test_on_a_linear_model_it_is_the_exact_contribution(method):
    case = planted()
    codes = case.codes(6, 5)
    found = attribution(
        case.model, {"layer": case.sae}, case.inputs(codes), lambda y: y.sum((1, 2)), method=method
    )
    torch.testing.assert_close(found["layer"], codes.sum(1) * case.weights, atol=1e-6, rtol=0)
    assert precision(found["layer"].abs().mean(0).argsort(descending=True), case.causal) == 1


def nonlinear() -> tuple[nn.Module, SparseAutoencoder, torch.Tensor]:
    torch.manual_seed(0)
    model = Tokens().double()
    model.head = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    return model, random_sae(8, 24, 5).double(), torch.randn(3, 7, 6, dtype=torch.float64)


def output(y: torch.Tensor) -> torch.Tensor:
    return y.mean(1)[:, 1] ** 2


def test_integrated_gradients_are_complete():
    model, sae, x = nonlinear()
    with attach(model, {"layer": sae}) as attached, torch.no_grad():
        with attached.edit(ZeroAblate(None)):
            empty = output(model(x))
        whole = output(model(x)) - empty
    options = {"method": "integrated_gradients", "steps": 200}
    shares = attribution(model, {"layer": sae}, x, output, **options)["layer"].sum(1)
    torch.testing.assert_close(shares, whole, rtol=1e-4, atol=1e-7)
    gradient = attribution(model, {"layer": sae}, x, output)["layer"].sum(1)
    assert not torch.allclose(gradient, whole, rtol=1e-2)


def test_activation_x_gradient_is_the_derivative_of_a_reconstruction_with_constant_error():
    model, sae, x = nonlinear()
    hidden = model.layer(x).detach()
    rows = hidden.reshape(-1, 8)
    code = sae.encode(rows)
    dense = code.to_dense().detach().requires_grad_()
    x_hat = (dense @ sae.W_dec + sae.b_dec) * sae.scale
    y = model.head((x_hat + (rows - x_hat).detach()).reshape(hidden.shape))
    (gradient,) = torch.autograd.grad(output(y).sum(), dense)
    expected = (dense * gradient).detach().reshape(3, 7, -1).sum(1)
    found = attribution(model, {"layer": sae}, x, output)["layer"]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", METHODS)
def test_each_of_several_layers_is_taken_by_itself(method):
    model, sae, x = nonlinear()
    saes = {"layer.0": random_sae(8, 12, 3).double(), "layer": sae}
    both = attribution(model, saes, x, output, method=method, steps=3)
    for layer in saes:
        alone = attribution(model, {layer: saes[layer]}, x, output, method=method, steps=3)
        torch.testing.assert_close(both[layer], alone[layer])


def test_parameters_get_no_gradients_and_inputs_may_be_keywords():
    model, sae, x = nonlinear()
    with torch.no_grad():
        found = attribution(model, {"layer": sae}, {"x": x}, output)["layer"]
    assert found.shape == (3, 24) and not found.requires_grad
    assert all(p.grad is None for p in [*model.parameters(), *sae.parameters()])


def test_a_code_without_latents_has_no_shares():
    model, sae, x = nonlinear()
    with torch.no_grad():
        sae.b_enc.fill_(-1e3)
    for method in METHODS:
        assert not attribution(model, {"layer": sae}, x, output, method=method)["layer"].any()


def test_mistakes_are_told_in_a_line():
    model, sae, x = nonlinear()
    saes = {"layer": sae}
    with pytest.raises(LightsaeError, match=r"^output gives \[3, 7, 4\], expected a number for"):
        attribution(model, saes, x, lambda y: y)
    with pytest.raises(LightsaeError, match=r"^output has no gradient, expected a differentiable"):
        attribution(model, saes, x, lambda y: y.detach().sum((1, 2)))
    with pytest.raises(LightsaeError, match=r"^method is 'lime', expected one of activation"):
        attribution(model, saes, x, output, method="lime")
    with pytest.raises(LightsaeError, match=r"^steps is 0, expected 1 or more$"):
        attribution(model, saes, x, output, method=METHODS[1], steps=0)
    with pytest.raises(LightsaeError, match=r"^a batch is a list, expected a tensor or a mapping"):
        attribution(model, saes, [x], output)


def test_more_steps_come_closer():
    model, _, x = nonlinear()
    wide = SparseAutoencoder(8, 24, TopK(5), normalization="layer_norm").double()
    errors = []
    with attach(model, {"layer": wide}) as attached, torch.no_grad():
        with attached.edit(ZeroAblate(None)):
            empty = output(model(x))
        whole = output(model(x)) - empty
    for steps in (1, 8, 64):
        options = {"method": METHODS[1], "steps": steps}
        shares = attribution(model, {"layer": wide}, x, output, **options)["layer"].sum(1)
        errors.append(float((shares - whole).abs().max()))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
