"""`lightsae vocabulary`: a file of words and their directions, from a model."""

from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt
from rich.console import Console

from lightsae.activations.extraction.models.options import ModelOptions
from lightsae.files import NameOption, expanded
from lightsae.plural import counted

if TYPE_CHECKING:
    from lightsae.dictionaries import Vocabulary

_ABOUT = (
    "Write a vocabulary that latents are named by: the concepts of a text file, embedded by a "
    "model of images and text, or the tokens of a causal language model. `lightsae name` and the "
    "anchor of the loss read it."
)


def vocabulary_command(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Words after `lightsae vocabulary`.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: If a file, the model or the vocabulary is not what it should be.
        MissingExtraError: If the model's library is not installed.
    """
    parser = _parser()
    parsed = parser.parse_args(list(words))
    if (parsed.concepts is None) == (parsed.tokens is None):
        raise ArgumentError(None, "give either --concepts FILE or --tokens input or output")
    # What follows needs torch; the options and their help do not.
    from lightsae.activations.shards.folder_lock import check_writable
    from lightsae.runs.log_filter import quieten

    quieten()
    given = parser.instantiate_classes(parsed)
    out = Path(expanded(given.out))
    check_writable(out.parent)
    found = _of_tokens(given) if given.concepts is None else _of_concepts(given)
    found.save(out)
    Console(stderr=True).print(
        f"{out}: {counted(len(found), 'word', ',')} in {found.vectors.shape[1]} dimensions",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def _of_tokens(given: Any) -> "Vocabulary":
    from lightsae.dictionaries import load_token_vocabulary

    return load_token_vocabulary(given.model, given.tokens, subtract_mean=given.subtract_mean)


def _of_concepts(given: Any) -> "Vocabulary":
    from lightsae.activations.extraction.extraction_job import usable_device
    from lightsae.dictionaries import concept_vocabulary, load_text_tower, read_concepts

    concepts = read_concepts(expanded(given.concepts))
    tower = load_text_tower(given.model, str(usable_device(given.device)))
    found = concept_vocabulary(
        concepts.names, tower, given.templates, space=given.space,
        subtract_mean=given.subtract_mean, batch_size=given.batch_size,
    )  # fmt: skip
    found.about["model"] = given.model.title
    return found


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="lightsae vocabulary", description=_ABOUT, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML with these options.")
    parser.add_class_arguments(ModelOptions, "model")
    parser.add_argument(
        "--concepts", type=NameOption | None, default=None,
        help="Text file with a concept on each line; behind a tab, what it belongs to.",
    )  # fmt: skip
    parser.add_argument(
        "--tokens", type=Literal["input", "output"] | None, default=None,
        help="Instead: the tokens of a causal language model by the embeddings of its input or "
        "output.",
    )  # fmt: skip
    parser.add_argument(
        "--templates", type=list[str], default=["a photo of a {}."],
        help="Sentences with {} for the concept; their embeddings are averaged.",
    )  # fmt: skip
    parser.add_argument(
        "--space", type=Literal["joint", "projection_input", "norm_input"], default="joint",
        help="Where the autoencoder sits: in the space shared with text, before the projection "
        "into it, or before the LayerNorm in front of that (the output of a block).",
    )  # fmt: skip
    parser.add_argument(
        "--subtract_mean", type=bool, default=False, help="Less the mean of all directions."
    )
    parser.add_argument("--batch_size", type=PositiveInt, default=256, help="Texts at once.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--out", type=NameOption, required=True, help="The file to write.")
    return parser
