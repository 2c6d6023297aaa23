"""What the ablation of each latent does to a scalar output."""

from functools import partial

import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.interventions.eval_mode import require_eval
from lightsae.interventions.finding.layer_features import present_places
from lightsae.interventions.finding.model_calls import (
    Inputs,
    Output,
    call,
    scalars,
)
from lightsae.interventions.finding.scaled_pairs import firing_pairs, scaled_outputs
from lightsae.interventions.hooks.attach import attach, require_saes
from lightsae.interventions.hooks.layer_code import Latents, checked_latents
from lightsae.sae import SparseAutoencoder


@torch.no_grad()
def ablation_effects(
    model: nn.Module,
    layer: str,
    sae: SparseAutoencoder,
    inputs: Inputs,
    output: Output,
    *,
    latents: Latents | None = None,
    batch_size: int = 64,
) -> Tensor:
    """How much a scalar changes when one latent is set to 0 everywhere in a sample.

    Only latents that fire in a sample are run there, each in a copy of the sample; the others
    change nothing. What fires in padding by an `attention_mask` is left alone.

    Args:
        model: In eval mode: a sample must not depend on others of the batch.
        layer: Where.
        sae: Its autoencoder.
        inputs: A tensor with the samples first, or keyword arguments.
        output: Makes a number of each sample, [B], of what the model gives.
        latents: Which, or None for all of the dictionary.
        batch_size: Copies of samples at once.

    Returns:
        Output with the latent ablated less output without, [B, m], on the CPU.

    Raises:
        LightsaeError: If there is no such layer or latent, the model is in training mode, or the
            output is not one number for each sample.

    Example:
        >>> from lightsae.sae import TopK
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
        >>> sae = SparseAutoencoder(d_in=8, d_sae=16, selection=TopK(4))
        >>> found = ablation_effects(model, "0", sae, torch.randn(5, 4), lambda y: y[:, 0])
        >>> found.shape, int((found != 0).sum())
        (torch.Size([5, 16]), 20)
    """
    if batch_size < 1:
        raise LightsaeError(f"batch_size is {batch_size}, expected 1 or more")
    require_saes({layer: sae})
    require_eval(model, "model")
    wanted = torch.arange(sae.d_sae) if latents is None else checked_latents(latents, sae.d_sae)
    column = torch.full((sae.d_sae,), -1)
    column[wanted.cpu()] = torch.arange(len(wanted))
    read = partial(scalars, output)
    with attach(model, {layer: sae}) as attached:
        with attached.record() as recording:
            result = call(model, inputs)
        present = present_places(inputs, recording[layer].lead)
        pairs = firing_pairs(recording[layer], wanted, present=present)
        before = read(result, pairs.batch).cpu()
        effects = before.new_zeros(pairs.batch, len(wanted))
        samples, columns = pairs.samples.cpu(), column[pairs.latents.cpu()]
        for part, after in scaled_outputs(
            attached, model, layer, inputs, pairs, 0.0, read, batch_size=batch_size,
            present=present,
        ):  # fmt: skip
            effects[samples[part], columns[part]] = after.cpu() - before[samples[part]]
    return effects
