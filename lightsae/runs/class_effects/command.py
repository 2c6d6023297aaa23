"""`lightsae effects`: what the latents of a run do to a classifier."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.console import Console

from lightsae.activations.extraction.images.preparation import DataOptions
from lightsae.activations.extraction.models.options import ModelOptions
from lightsae.files import expanded
from lightsae.plural import counted

_ABOUT = (
    "Change latents of an evaluated run in the classifier that its shards were extracted from: "
    "class logits with a latent ablated and amplified, beside random latents, over the images of "
    "the test split. `lightsae report` shows them. Model, layer and images are those that the "
    "shards say."
)


def effects_command(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Words after `lightsae effects`.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: What `measure_run` raises.
    """
    parser = _parser()
    parsed = parser.parse_args(list(words))
    # What follows needs torch; the options and their help do not.
    from lightsae.runs.class_effects.measure_run import measure_run
    from lightsae.runs.log_filter import quieten

    quieten()
    given = parser.instantiate_classes(parsed)
    folder = Path(expanded(given.run))
    effects = measure_run(
        folder, latents=given.latents, n_random=given.n_random, amplify=given.amplify,
        seed=given.seed, batch_size=given.batch_size, device=given.device, model=given.model,
        images=given.images,
    )  # fmt: skip
    Console(stderr=True).print(
        f"{folder}: effects of {counted(len(effects.latents), 'latent')} of {effects.layer} over "
        f"{counted(effects.images, 'image')} of the test split; `lightsae report` shows them",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="lightsae effects", description=_ABOUT, exit_on_error=False)
    parser.add_argument("run", type=str, help="A run folder that `lightsae test` evaluated.")
    parser.add_argument(
        "--latents", type=PositiveInt | list[NonNegativeInt], default=32,
        help="How many, the most monosemantic first; or which, [3,5].",
    )  # fmt: skip
    parser.add_argument(
        "--n_random", type=PositiveInt, default=20,
        help="Random latents of similar frequency that each is compared with.",
    )  # fmt: skip
    parser.add_argument("--amplify", type=float, default=2.0, help="Factor of the amplification.")
    parser.add_argument(
        "--seed", type=NonNegativeInt, default=0, help="Seed of the random latents."
    )
    parser.add_argument("--batch_size", type=PositiveInt, default=64, help="Images at once.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_class_arguments(ModelOptions, "model")
    parser.add_class_arguments(DataOptions, "images")
    return parser
