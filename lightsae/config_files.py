"""YAML files of settings, before they are parsed: a key that is given twice is refused."""

from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def require_each_key_once(words: Sequence[str]) -> None:
    """Refuse a file in which a key stands twice: of the first, all that is below it would be lost.

    Args:
        words: Those of the command; files are what follows `--config` or `-c`.

    Raises:
        argparse.ArgumentError: Naming file, line and key.
    """
    for path in _configs(words):
        import yaml

        try:
            root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except (OSError, ValueError, yaml.YAMLError):  # the parser says what is wrong with it
            continue
        for key in _repeated(root):
            line = key.start_mark.line + 1
            raise ArgumentError(None, f"{path}: line {line}: {key.value} is given twice")


def _configs(words: Sequence[str]) -> Iterator[Path]:
    """The files that are given as configurations."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in ("--config", "-c") and (value or following):
            yield Path(value if equals else following).expanduser()


def _repeated(node: Any) -> Iterator[Any]:
    """Keys of mappings that stood before in the same mapping."""
    if node is None or isinstance(node.value, str):
        return
    seen = set()
    for part in node.value:
        key, value = part if isinstance(part, tuple) else (None, part)
        if key is not None and isinstance(key.value, str):
            if key.value in seen:
                yield key
            seen.add(key.value)
        yield from _repeated(value)
