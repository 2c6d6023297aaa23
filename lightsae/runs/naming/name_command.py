"""`lightsae name`: what the latents of a run are called."""

from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.console import Console

from lightsae.files import NameOption, expanded

if TYPE_CHECKING:
    from lightsae.dictionaries import LatentNames

_ABOUT = (
    "Name the latents of a run, by the words of a vocabulary that their decoder rows are parallel "
    "to, or by the classes or attributes of the evaluated rows that they fire on. Writes "
    "latent_names.json in the run folder, which `lightsae report` reads."
)
_COSINE, _PURITY = 0.8, 0.5


def name_command(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Words after `lightsae name`.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: What `names_by_vocabulary` and the like raise.
    """
    parser = _parser()
    given = parser.parse_args(list(words))
    if [given.vocabulary is not None, given.attributes is not None, given.labels].count(True) != 1:
        raise ArgumentError(None, "give one of --vocabulary FILE, --labels and --attributes FILE")
    # What follows needs torch; the options and their help do not.
    from lightsae.activations.shards.folder_lock import check_writable
    from lightsae.dictionaries.naming.names_file import FILE
    from lightsae.runs.log_filter import quieten
    from lightsae.runs.naming.names_table import names_table

    quieten()
    folder = Path(expanded(given.run))
    check_writable(folder)
    found = _names(given, folder)
    was_there = (folder / FILE).exists()
    found.save(folder)
    Console().print(names_table(found, given.show))
    replaced = ", in place of the names that were there" if was_there else ""
    Console(stderr=True).print(
        f"{folder / FILE} written{replaced}", markup=False, highlight=False, soft_wrap=True
    )


def _names(given: Any, folder: Path) -> "LatentNames":
    """The names that are asked for."""
    from lightsae.runs.naming import name_run

    if given.vocabulary is not None:
        cutoff = _COSINE if given.cutoff is None else given.cutoff
        path = Path(expanded(given.vocabulary))
        return name_run.names_by_vocabulary(folder, path, cutoff, candidates=given.candidates)
    floor = _PURITY if given.cutoff is None else given.cutoff
    options = {"min_firings": given.min_firings, "candidates": given.candidates}
    if given.labels:
        return name_run.names_by_classes(folder, floor, **options)
    path = Path(expanded(given.attributes))
    return name_run.names_by_attributes(folder, path, floor, **options)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="lightsae name", description=_ABOUT, exit_on_error=False)
    parser.add_argument(
        "run", type=str, help="A run folder; but for --vocabulary an evaluated one."
    )
    parser.add_argument(
        "--vocabulary", type=NameOption | None, default=None,
        help="A file that `lightsae vocabulary` wrote.",
    )  # fmt: skip
    parser.add_argument(
        "--labels", action="store_true",
        help="Instead: the classes of the rows that the run was evaluated on.",
    )  # fmt: skip
    parser.add_argument(
        "--attributes", type=NameOption | None, default=None,
        help="Instead: a CSV file with a line for each sample; its header is sample and the names "
        "of attributes, values are 0 or 1.",
    )  # fmt: skip
    parser.add_argument(
        "--cutoff", type=float | None, default=None,
        help="Least score of a name: cosine (default: 0.8), or without --vocabulary the purity "
        "beyond chance (default: 0.5).",
    )  # fmt: skip
    parser.add_argument(
        "--min_firings", type=PositiveInt, default=10,
        help="Without --vocabulary: different samples in which a latent must fire to be named.",
    )  # fmt: skip
    parser.add_argument(
        "--candidates", type=PositiveInt, default=5, help="Best words of each latent to keep."
    )
    parser.add_argument(
        "--show", type=NonNegativeInt, default=20, help="Latents to print, the surest first."
    )
    return parser
