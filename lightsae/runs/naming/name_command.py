"""`lightsae name`: what the latents of a run are called."""

from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.console import Console

from lightsae.files import NameOption, expanded

_ABOUT = (
    "Name the latents of a run, by the words of a vocabulary that their decoder rows are parallel "
    "to, or by the classes of the evaluated rows that they fire on. Writes latent_names.json in "
    "the run folder, which galleries and `lightsae report` read."
)
_CUTOFFS = {"vocabulary": 0.8, "labels": 0.5}


def name_command(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Words after `lightsae name`.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: What `names_by_vocabulary` and `names_by_classes` raise.
    """
    parser = _parser()
    given = parser.parse_args(list(words))
    if (given.vocabulary is None) != given.labels:
        raise ArgumentError(None, "give either --vocabulary FILE or --labels")
    # What follows needs torch; the options and their help do not.
    from lightsae.runs.log_filter import quieten
    from lightsae.runs.naming.name_run import names_by_classes, names_by_vocabulary
    from lightsae.runs.naming.names_table import names_table

    quieten()
    folder = Path(expanded(given.run))
    cutoff = given.cutoff
    if given.labels:
        found = names_by_classes(
            folder, _CUTOFFS["labels"] if cutoff is None else cutoff,
            min_firings=given.min_firings, candidates=given.candidates,
        )  # fmt: skip
    else:
        found = names_by_vocabulary(
            folder, Path(expanded(given.vocabulary)),
            _CUTOFFS["vocabulary"] if cutoff is None else cutoff, candidates=given.candidates,
        )  # fmt: skip
    found.save(folder)
    Console().print(names_table(found, given.show))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="lightsae name", description=_ABOUT, exit_on_error=False)
    parser.add_argument("run", type=str, help="A run folder; --labels needs an evaluated one.")
    parser.add_argument(
        "--vocabulary", type=NameOption | None, default=None,
        help="A file that `lightsae vocabulary` wrote.",
    )  # fmt: skip
    parser.add_argument(
        "--labels", action="store_true",
        help="Instead: the classes of the rows that the run was evaluated on.",
    )  # fmt: skip
    parser.add_argument(
        "--cutoff", type=float | None, default=None,
        help="Least score of a name: cosine (default: 0.8), or with --labels the purity beyond "
        "chance (default: 0.5).",
    )  # fmt: skip
    parser.add_argument(
        "--min_firings", type=PositiveInt, default=10,
        help="With --labels: rows on which a latent must fire to be named.",
    )  # fmt: skip
    parser.add_argument(
        "--candidates", type=PositiveInt, default=5, help="Best words of each latent to keep."
    )
    parser.add_argument(
        "--show", type=NonNegativeInt, default=20, help="Latents to print, the surest first."
    )
    return parser
