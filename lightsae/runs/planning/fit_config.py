"""The settings of a configuration of fit, parsed as fit parses them, without making anything."""

from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightsae.activations import Manifest
from lightsae.activations.shards.dtypes import storage
from lightsae.activations.shards.manifest import MANIFEST_NAME
from lightsae.error_messages import one_line
from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.planning.shape import Shape, shape_of
from lightsae.runs.command.parsing import ParsingCLI


class _Settings(ParsingCLI):
    """Parses, and neither makes nor seeds nor runs anything."""

    def instantiate_classes(self) -> None:
        """Nothing is made."""

    def _set_seed(self) -> None:
        """Nothing is seeded."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""

    @property
    def plain(self) -> dict[str, Any]:
        """All settings of fit, defaults included."""
        return self._plain(self.config["fit"])


def fit_settings(words: Sequence[str]) -> dict[str, Any]:
    """All settings of `lightsae fit WORDS`, defaults included.

    Args:
        words: Options of fit, --config among them.

    Raises:
        argparse.ArgumentError: If they are no options or no configuration of fit.
    """
    try:
        return _Settings(["fit", *words]).plain
    except ArgumentError as error:
        message = f"no configuration of lightsae fit: {one_line(str(error))}"
        raise ArgumentError(None, message) from error


def planned_shape(settings: dict[str, Any], d_in: int | None, dead_share: float) -> Shape:
    """The shape of a run; its width from the settings, from its shards, or as given.

    Args:
        settings: As `fit_settings` has them.
        d_in: Width of the activations where neither settings nor shards tell it.
        dead_share: See `shape_of`.

    Raises:
        LightsaeError: If nothing tells the width, two disagree, or `shape_of` refuses.
    """
    manifest = _manifest(settings)
    given = ((settings.get("model") or {}).get("init_args") or {}).get("d_in")
    of_shards = None if manifest is None else manifest.d_in
    told = {"--d_in": d_in, "model.d_in": given, "the shards": of_shards}
    known = {name: width for name, width in told.items() if width is not None}
    if not known:
        raise LightsaeError(
            "nothing tells the width of the activations, the shards are not there: give --d_in"
        )
    if len(set(known.values())) > 1:
        said = ", ".join(f"{name}: {width}" for name, width in known.items())
        raise LightsaeError(f"the width of the activations is told differently by {said}")
    width = next(iter(known.values()))
    if manifest is None:
        return shape_of(settings, width, dead_share=dead_share)
    row_bytes = width * storage(manifest.dtype).disk_dtype.itemsize
    return shape_of(
        settings, width, stored_rows=manifest.rows, row_bytes=row_bytes, dead_share=dead_share
    )


def _manifest(settings: dict[str, Any]) -> Manifest | None:
    """That of the shards, where they are there."""
    path = ((settings.get("data") or {}).get("init_args") or {}).get("path")
    if path is None or not (Path(expanded(path)) / MANIFEST_NAME).is_file():
        return None
    return Manifest.load(Path(expanded(path)))
