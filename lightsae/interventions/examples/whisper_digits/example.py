"""The example from recordings to report: a model, autoencoders, probes, a steering."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightsae.files import replacing
from lightsae.interventions.examples.sae_fitting import fit_sae
from lightsae.interventions.examples.whisper_digits.digit_clips import (
    Sounds,
    pieces,
    utterances,
)
from lightsae.interventions.examples.whisper_digits.tiny_whisper import load_weights, tiny_whisper
from lightsae.interventions.examples.whisper_digits.training import train
from lightsae.interventions.whisper import Clip, HallucinationTask, Whisper
from lightsae.sae import SparseAutoencoder


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        d_model: Width of the model.
        layers: Of its encoder.
        steps: Of its training.
        utterances: It is trained on.
        nonspeech: Recordings without speech for training, to find latents, and for the choice; the
            others are the test.
        pieces: Clips of each recording without speech.
        d_sae: Latents of an autoencoder.
        k: Of them for each time step.
        epochs: Passes over the activations.
    """

    d_model: int = 64
    layers: int = 3
    steps: int = 700
    utterances: int = 3000
    nonspeech: tuple[int, int, int] = (4, 60, 45)
    pieces: int = 3
    d_sae: int = 512
    k: int = 16
    epochs: int = 12


def layer_names(sizes: Sizes) -> list[str]:
    """Modules of the encoder that get an autoencoder."""
    return [f"model.encoder.layers.{layer}" for layer in range(sizes.layers)]


class Material:
    """Clips of a seed, by split.

    Args:
        sounds: The recordings.
        sizes: How many.
        seed: Of splits and clips.
    """

    def __init__(self, sounds: Sounds, sizes: Sizes, seed: int) -> None:
        rng = np.random.default_rng(seed)
        order = rng.permutation(sounds.names).tolist()
        ends = np.cumsum(sizes.nonspeech)
        train_names, *others = (part.tolist() for part in np.split(order, ends))
        self.spoken = utterances(sounds, "train", sizes.utterances, rng)
        self.silent = pieces(sounds, train_names, 600 // len(train_names), rng)
        self.speech = {split: utterances(sounds, split, None, rng) for split in ("choice", "test")}
        self.nonspeech = {
            split: pieces(sounds, names, sizes.pieces, rng)
            for split, names in zip(("find", "choice", "test"), others, strict=True)
        }


def trained_whisper(material: Material, sizes: Sizes, seed: int, folder: Path) -> Whisper:
    """The model, trained or from the folder.

    Args:
        material: Clips.
        sizes: Of model and training.
        seed: Of weights and batches.
        folder: Gets whisper.safetensors.
    """
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    whisper = tiny_whisper(sizes.d_model, sizes.layers)
    file = folder / "whisper.safetensors"
    if file.exists():
        load_weights(whisper, file)
        return whisper
    train(whisper, material.spoken, material.silent, steps=sizes.steps, seed=seed)
    weights = {
        name: value.contiguous().clone() for name, value in whisper.model.state_dict().items()
    }
    with replacing(file) as temporary:
        save_file(weights, temporary)
    return whisper


def fitted_saes(
    whisper: Whisper, material: Material, sizes: Sizes, seed: int, folder: Path
) -> dict[str, SparseAutoencoder]:
    """An autoencoder on each layer of the encoder, over what it says of speech and no speech.

    Args:
        whisper: The model.
        material: Clips; those of the splits choice and test are left out.
        sizes: Of the autoencoders.
        seed: Of weights and batches.
        folder: Gets sae/LAYER.
    """
    silent = [*material.nonspeech["find"], *material.silent[:: len(material.silent) // 60]]
    clips = [*material.spoken[: len(silent)], *silent]
    rows = encoder_rows(whisper, clips, layer_names(sizes))
    return {
        layer: fit_sae(
            activations, folder / "sae" / layer,
            d_sae=sizes.d_sae, k=sizes.k, epochs=sizes.epochs, seed=seed,
            batch_size=512,
        )
        for layer, activations in rows.items()
    }  # fmt: skip


@torch.no_grad()
def encoder_rows(whisper: Whisper, clips: list[Clip], layers: list[str]) -> dict[str, Tensor]:
    """Outputs of layers at every time step, [clips x steps, d_model] float32 each.

    Args:
        whisper: The model.
        clips: Clips.
        layers: Names of modules.
    """
    rows: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    encoder = whisper.model.get_submodule("model.encoder")

    def keep(layer: str) -> object:
        def hook(module: object, inputs: object, output: Tensor) -> None:
            rows[layer].append(output.flatten(0, 1))

        return whisper.model.get_submodule(layer).register_forward_hook(hook)

    handles = [keep(layer) for layer in layers]
    for start in range(0, len(clips), 64):
        encoder(whisper.features([clip.audio for clip in clips[start : start + 64]]))
    for handle in handles:
        handle.remove()  # type: ignore[attr-defined]
    return {layer: torch.cat(parts) for layer, parts in rows.items()}


def hallucination_task(
    whisper: Whisper, saes: Mapping[str, SparseAutoencoder], material: Material
) -> HallucinationTask:
    """What is steered."""
    return HallucinationTask(whisper, saes, material.speech, material.nonspeech, batch_size=64)
