"""`python -m lightsae.dictionaries.examples.vocabulary_names --data shakespeare.txt.gz`."""

import tempfile
from argparse import ArgumentParser
from pathlib import Path

from rich.console import Console

from lightsae.dictionaries.examples.vocabulary_names.anchored import (
    Fitting,
    chosen_of,
    fit_all,
    least_of,
    share_of_random,
    write_shards,
)
from lightsae.dictionaries.examples.vocabulary_names.detection import detect
from lightsae.dictionaries.examples.vocabulary_names.summary import (
    conclusion,
    table_of,
    told_detection,
    told_names,
)
from lightsae.dictionaries.examples.vocabulary_names.text_model import (
    TextModel,
    activations,
    byte_pairs,
    read_text,
    trained,
    windows_of,
)
from lightsae.dictionaries.naming.token_vocabulary import token_vocabulary

# Of the text's windows; what is left is for the model and the autoencoders.
_SPLITS = {"validation": 0.05, "test": 0.05}
_WINDOWS_ENCODED = 1000


def main(
    arguments: list[str] | None = None,
    model_options: TextModel | None = None,
    fitting: Fitting | None = None,
) -> None:
    """Train model and autoencoders; print the table, what it comes to, and names with contexts.

    Args:
        arguments: Of the command; by default those of the process.
        model_options: Sizes of text and model.
        fitting: Sizes of the autoencoders.
    """
    parser = ArgumentParser(
        prog="python -m lightsae.dictionaries.examples.vocabulary_names",
        description="Autoencoders of a small Llama, trained on the spot on a text, whose latents "
        "an anchor holds near its token embeddings.",
    )
    parser.add_argument("--data", type=Path, required=True, help="a text, .txt or .txt.gz")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    options, fitting = model_options or TextModel(), fitting or Fitting()
    tokenizer = byte_pairs(text := read_text(given.data), options.tokens)
    windows = windows_of(text, tokenizer, options.window)
    held_out = {split: round(share * len(windows)) for split, share in _SPLITS.items()}
    *parts, rest = windows.split([*held_out.values(), len(windows) - sum(held_out.values())])
    model = trained(rest, options, len(tokenizer), given.seed)
    splits = {
        split: activations(model, options.block, part)
        for split, part in zip(held_out, parts, strict=True)
    }
    vocabulary = token_vocabulary(model, tokenizer)
    with tempfile.TemporaryDirectory(prefix="vocabulary_names_") as folder:
        rows = activations(model, options.block, rest[:_WINDOWS_ENCODED]).rows
        shards = write_shards(rows, Path(folder) / "shards")
        measured = {split: found.rows for split, found in splits.items()}
        found = fit_all(shards, measured, vocabulary, fitting, given.seed)
    console, chosen = Console(), chosen_of(found)
    console.print(table_of(found, chosen))
    by_chance = share_of_random(vocabulary, given.seed)
    console.print(f"Of random directions {by_chance:.1%} are aligned.", highlight=False)
    console.print(conclusion(found, chosen), highlight=False)
    shown = chosen or least_of(found) or max(found, key=lambda each: each.aligned)
    console.print(f"Names at lambda {shown.weight:g}:", highlight=False)
    detection = detect(shown, splits["test"], given.seed)
    console.print(told_detection(detection), highlight=False)
    for line in told_names(detection, splits["test"], tokenizer):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
