"""A folder of an example belongs to one seed and size: what is there is not made again."""

import json
from collections.abc import Mapping
from pathlib import Path

from lightsae.errors import LightsaeError
from lightsae.files import replacing


def require_same(folder: Path, settings: Mapping[str, object]) -> None:
    """Keep the settings in a folder beside what is made of them, and refuse others.

    Args:
        folder: An existing folder; gets `experiment.json`.
        settings: Plain values.

    Raises:
        LightsaeError: If the folder holds an experiment of others.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> require_same(folder, {"seed": 0})
        >>> require_same(folder, {"seed": 0})
        >>> require_same(folder, {"seed": 1})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: ...experiment.json has another seed or size, expected ...
    """
    path = folder / "experiment.json"
    told = json.dumps(settings, indent=1)
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_text(told)
    elif path.read_text() != told:
        raise LightsaeError(f"{path} has another seed or size, expected another folder")
