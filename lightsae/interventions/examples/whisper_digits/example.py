"""The example from recordings to report: a model, autoencoders, probes, a steering."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xxhash
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lightsae.interventions.examples.sae_fitting import fit_sae
from lightsae.interventions.examples.same_experiment import require_same
from lightsae.interventions.examples.whisper_digits.digit_clips import (
    Sounds,
    pieces,
    read_sounds,
    sessions,
    utterances,
)
from lightsae.interventions.examples.whisper_digits.tiny_whisper import tiny_whisper
from lightsae.interventions.examples.whisper_digits.training import train
from lightsae.interventions.finding.layer_probes import LayerProbes, probe_layers
from lightsae.interventions.steering import SteeringOptions, SteeringResult, steer
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
    steps: int = 1400
    utterances: int = 4000
    nonspeech: tuple[int, int, int] = (6, 60, 43)
    pieces: int = 3
    d_sae: int = 512
    k: int = 16
    epochs: int = 12


_SIZES = Sizes()
_PASSES = 2
# Ours: what is not reconstructed is kept, as it costs words; reconstruction only stands beside.
_OPTIONS = SteeringOptions(
    strengths=[0.25, 0.375, 0.5, 0.625, 0.75, 1.0],
    counts=[8, 16, 24, 32, 48],
    draws=2,
)


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
        self.spoken = utterances(sounds, sizes.utterances, rng)
        self.silent = pieces(sounds, train_names, 600 // len(train_names), rng)
        self.speech = {split: sessions(sounds, split, _PASSES, rng) for split in ("choice", "test")}
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
        folder: Gets whisper/.
    """
    place = folder / "whisper"
    if place.exists():
        return Whisper.load(str(place), language="en")
    torch.manual_seed(seed)
    whisper = tiny_whisper(sizes.d_model, sizes.layers)
    train(whisper, material.spoken, material.silent, steps=sizes.steps, seed=seed)
    whisper.save(place)
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
    clips = [*material.spoken[: 2 * len(silent)], *silent]
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


def run(
    data: Path,
    out: Path,
    *,
    seed: int = 0,
    sizes: Sizes = _SIZES,
    options: SteeringOptions = _OPTIONS,
) -> SteeringResult:
    """Train, fit, find, steer, and report; what the folder has already is not made again.

    Args:
        data: The npz file of the recordings.
        out: Gets experiment.json, whisper, sae/LAYER and steering with table, figures and page.
        seed: Of everything.
        sizes: How large everything is.
        options: Of the steering; the middle layer of the encoder is steered.

    Returns:
        What the steering came to.

    Raises:
        LightsaeError: If the file is not as described, or the folder holds something else, such as
            an example of another seed, size or file.
    """
    from lightsae.report.steering_report import write_steering_report

    console = Console()
    material = Material(read_sounds(data), sizes, seed)
    out.mkdir(parents=True, exist_ok=True)
    # A model of another seed was trained on recordings that are this one's test.
    content = xxhash.xxh3_64_hexdigest(data.read_bytes())
    require_same(out, {"seed": seed, "recordings": content, **asdict(sizes)})
    whisper = trained_whisper(material, sizes, seed, out)
    saes = fitted_saes(whisper, material, sizes, seed, out)
    task = HallucinationTask(whisper, saes, material.speech, material.nonspeech, batch_size=64)
    examples = task.examples()
    recordings = [clip.recording for clip in material.nonspeech["find"]]
    features = task.features(examples.batches)
    probes = probe_layers(features, examples.labels, seed=seed, groups=recordings)
    console.print(probe_table(probes))
    middle = layer_names(sizes)[sizes.layers // 2]
    about = {"example": "whisper_digits", "seed": seed, "sizes": asdict(sizes)}
    steer(task, out / "steering", replace(options, layers=[middle], seed=seed), about=about)
    return write_steering_report(out / "steering", console)


def probe_table(probes: Mapping[str, LayerProbes]) -> Table:
    """AUC of the probes on each layer.

    Args:
        probes: By layer.
    """
    table = Table("layer", "AUC, activations", "AUC, codes", title="does the model hallucinate?")
    for layer, both in probes.items():
        cells = [f"{each.mean_auc:.3f} \u00b1 {each.sd_auc:.3f}" for each in both]
        table.add_row(layer, *cells)
    return table
