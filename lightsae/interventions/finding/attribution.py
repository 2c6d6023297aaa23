"""Attribution of a scalar output to the latents of several layers."""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.interventions.finding.model_calls import Inputs, Output, call, scalars
from lightsae.interventions.hooks.attach import Attached, attach, require_saes
from lightsae.interventions.hooks.edits import Scale
from lightsae.interventions.hooks.layer_code import LayerCode
from lightsae.sae import SparseAutoencoder

AttributionMethod = Literal["activation_x_gradient", "integrated_gradients"]


def attribution(
    model: nn.Module,
    saes: Mapping[str, SparseAutoencoder],
    inputs: Inputs,
    output: Output,
    *,
    method: AttributionMethod = "activation_x_gradient",
    steps: int = 16,
) -> dict[str, Tensor]:
    """How much of a scalar each latent accounts for, summed over places.

    Activation x gradient is value * d output / d value. Integrated gradients (arXiv 1703.01365) is
    value times the mean of that derivative while all values of the layer go from 0 to what they
    are, by the midpoint rule; its sum over latents is the output less that with an empty code, but
    for the error of the rule. The error term and the places that fire are constant in both, and
    each layer is taken by itself: what it does on its way through later layers counts.

    Args:
        model: In eval mode, its output differentiable; gradients of its parameters stay as they
            are.
        saes: Of each layer its autoencoder.
        inputs: A tensor, or keyword arguments.
        output: Makes a number of each sample, [B], of what the model gives.
        method: Which of the two.
        steps: Points of the midpoint rule.

    Returns:
        Of each layer the shares of its latents, [B, d_sae], on the device of the values.

    Raises:
        LightsaeError: If there is no such layer or method, or the output is not differentiable or
            not one number for each sample.

    Example:
        >>> from lightsae.sae import TopK
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> saes = {"0": SparseAutoencoder(d_in=8, d_sae=16, selection=TopK(4))}
        >>> found = attribution(model, saes, torch.randn(5, 4), lambda y: y[:, 1] - y[:, 0])
        >>> found["0"].shape, int((found["0"] != 0).sum())
        (torch.Size([5, 16]), 20)
    """
    if method not in get_args(AttributionMethod):
        known = ", ".join(get_args(AttributionMethod))
        raise LightsaeError(f"method is {method!r}, expected one of {known}")
    if steps < 1:
        raise LightsaeError(f"steps is {steps}, expected 1 or more")
    require_saes(saes)
    with torch.enable_grad():
        if method == "integrated_gradients":
            return {
                layer: _integrated(model, layer, sae, inputs, output, steps)
                for layer, sae in saes.items()
            }
        with attach(model, saes) as attached:
            found = _derivatives(attached, model, inputs, output, list(saes))
    return {layer: _summed(seen, gradient) for layer, (seen, gradient) in found.items()}


def _integrated(
    model: nn.Module,
    layer: str,
    sae: SparseAutoencoder,
    inputs: Inputs,
    output: Output,
    steps: int,
) -> Tensor:
    """Integrated gradients of one layer, [B, d_sae]."""
    with attach(model, {layer: sae}) as attached:
        with torch.no_grad(), attached.record() as recording:
            call(model, inputs)
        code = recording[layer].code
        firing = code.indices[code.values > 0].unique()
        if not len(firing):
            return _summed(recording[layer], torch.zeros_like(code.values))
        mean = torch.zeros_like(code.values)
        for step in range(steps):
            factor = (step + 0.5) / steps
            with attached.edit(Scale(firing, factor), layer, must_touch=False):
                found = _derivatives(attached, model, inputs, output, [layer])
            # The derivative is that by the values before they are scaled.
            mean += found[layer][1] / (factor * steps)
    return _summed(recording[layer], mean)


def _derivatives(
    attached: Attached, model: nn.Module, inputs: Inputs, output: Output, layers: list[str]
) -> dict[str, tuple[LayerCode, Tensor]]:
    """Of each layer its code, and the derivative of the output by its values, [rows, k]."""
    with attached.record(gradients=True) as recording:
        result = call(model, inputs)
    codes = {layer: recording[layer] for layer in layers}
    batch = codes[layers[0]].lead[0]
    total = scalars(output, result, batch).sum()
    if not total.requires_grad:
        raise LightsaeError("output has no gradient, expected a differentiable function")
    values = [seen.code.values for seen in codes.values()]
    gradients = torch.autograd.grad(total, values, allow_unused=True, materialize_grads=True)
    return dict(zip(codes, zip(codes.values(), gradients, strict=True), strict=True))


def _summed(seen: LayerCode, gradient: Tensor) -> Tensor:
    """Value times gradient, summed over the places of each sample, [B, d_sae]."""
    shares = seen.code.values.detach() * gradient
    samples, d_sae = seen.lead[0], seen.code.d_sae
    sums = shares.new_zeros(samples, d_sae)
    if not len(shares):
        return sums
    return sums.scatter_add_(1, seen.code.indices.reshape(samples, -1), shares.reshape(samples, -1))
