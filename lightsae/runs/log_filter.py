"""Filters for log lines and warnings that Lightning prints about itself."""

import logging
import warnings
from pathlib import Path

_OWN_DEFAULTS = (
    r".*isinstance\(treespec, LeafSpec\).*",
    ".*does not have many workers.*",
    # A run that goes on finds what it left there.
    r"Checkpoint directory .* exists and is not empty",
    r"You are trying to `self\.log.*barebones",
    # It cannot shard a model, and warns of evaluations as of a loss.
    "You're using the WeightAveraging callback",
    "Couldn't infer the batch indices",
    "Total length of `list` across ranks is zero",
    # Lightning's command line calls what newer versions of jsonargparse have renamed.
    r"\s*(By default only one Jsonarg|``ArgumentParser.add_inst|``instantiate_cl|skip_none para)",
)


_PACKAGE = Path(__file__).parents[1]
_format_as_before = warnings.formatwarning


def _formatted(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning of this package as one line: where in it means nothing to a user."""
    if _PACKAGE in Path(filename).parents:
        return f"warning: {message}\n"
    return _format_as_before(message, category, filename, lineno, line)


def quieten() -> None:
    """Drop advertisements and remarks on Lightning's own defaults; warnings of weight stay.

    What this package has to tell goes to stderr, a line each.

    Example:
        >>> quieten()
        >>> logging.getLogger("lightning.pytorch").level == logging.WARNING
        True
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _OWN_DEFAULTS:
        warnings.filterwarnings("ignore", message=message)
    warnings.formatwarning = _formatted
    own = logging.getLogger("lightsae")
    own.setLevel(logging.INFO)
    if not own.handlers:
        own.addHandler(logging.StreamHandler())
