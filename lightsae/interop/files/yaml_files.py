"""YAML of strangers: bounded, plain values, and no aliases, which a few lines can multiply."""

import json
from pathlib import Path
from typing import Any

import yaml

from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.interop.files.safe_files import file_in, read_bounded

MAX_YAML_BYTES = 2**20


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping of a YAML file, as JSON would have it: dates and other keys as text.

    Args:
        path: The file, of at most `MAX_YAML_BYTES`.

    Raises:
        LightsaeError: If it cannot be read, is too large, has aliases or holds anything but one
            mapping of plain values.

    Example:
        >>> read_yaml(Path("config.yaml"))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: config.yaml cannot be read: No such file or directory
    """
    try:
        content = read_bounded(path, MAX_YAML_BYTES)
        events = yaml.parse(content, Loader=yaml.SafeLoader)
        if any(isinstance(event, yaml.AliasEvent) for event in events):
            raise LightsaeError(f"{path} has YAML aliases, which are not read")
        found = yaml.safe_load(content)
        plain = json.loads(json.dumps(found, default=str, skipkeys=True))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, LightsaeError):
            raise
        raise LightsaeError(f"{path} is not YAML: {reason(error)}") from error
    if not isinstance(plain, dict):
        raise LightsaeError(f"{path} holds a {type(plain).__name__}, expected a mapping")
    return plain


def peek_yaml(path: Path) -> dict[str, Any]:
    """The mapping of a YAML file, empty where it cannot be read: for recognising a format.

    Example:
        >>> peek_yaml(Path("no_such.yaml"))
        {}
    """
    try:
        return read_yaml(file_in(path.parent, path.name))
    except LightsaeError:
        return {}
