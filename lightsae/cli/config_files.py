"""YAML files of settings, before they are parsed: what would be lost without a word is refused."""

import re
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightsae.errors import LightsaeError
from lightsae.files import expanded

# Options that are names, which YAML may take for numbers: of 007 it leaves 7.
_NAMES = {
    "run_dir", "path", "out", "folder", "layer", "name", "weights", "huggingface", "webdataset",
    "arrays", "split", "image_key", "label_key", "encoders", "default_root_dir", "ckpt_path",
    "dirpath", "save_dir",
}  # fmt: skip
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# 010 is 8 to YAML, and 1:30 is 90.
_OTHER_BASE = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9]+)+)")
# In place of a file: the settings themselves.
_INLINE = re.compile(r"^{|:\s|\n")


def with_expanded_configs(words: Sequence[str]) -> list[str]:
    """Words of a command in which `~` and variables of the configurations' paths are replaced.

    Args:
        words: Those of the command; files are what follows `--config` or `-c`.

    Raises:
        LightsaeError: If there is no such variable or user.

    Example:
        >>> import os
        >>> os.environ["DISK"] = "/scratch"
        >>> with_expanded_configs(["fit", "--config", "$DISK/a.yaml", "--config=a.yaml"])
        ['fit', '--config', '/scratch/a.yaml', '--config=a.yaml']
    """
    found = list(words)
    for place, prefix, value in _configs(words):
        if not _INLINE.search(value):
            found[place] = prefix + expanded(value)
    return found


def with_config_of_run(words: Sequence[str]) -> list[str]:
    """Words of a command over a trained run; without a configuration they name the run's own.

    Args:
        words: Those of validate, test or predict.

    Raises:
        LightsaeError: If there is no configuration at all.

    Example:
        >>> with_config_of_run(["test", "--config", "a.yaml", "--run_dir", "runs/a"])
        ['test', '--config', 'a.yaml', '--run_dir', 'runs/a']
    """
    found = list(words)
    if any(True for _ in _configs(words)):
        return found
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == "--run_dir":
            own = Path(expanded(value if equals else following)) / "config.yaml"
            if own.is_file():
                return [found[0], "--config", str(own), *found[1:]]
            if not any(word.startswith("--model") for word in words):
                raise LightsaeError(f"{own}: no such file, and --config names no other")
    return found


def require_unambiguous(words: Sequence[str]) -> None:
    """Refuse a file in which a key stands twice, or a number would be read as another one.

    Of a key's first value all that is below it would be lost, of the name 007 the zeros.

    Args:
        words: Those of the command; files are what follows `--config` or `-c`.

    Raises:
        argparse.ArgumentError: Naming file, line and key.
    """
    for _, _, value in _configs(words):
        import yaml

        try:
            text = Path(value).read_text(encoding="utf-8")
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except (OSError, ValueError, yaml.YAMLError):  # the parser says what is wrong with it
            continue
        for node, what in _faults(root, ""):
            raise ArgumentError(None, f"{value}: line {node.start_mark.line + 1}: {what}")


def _configs(words: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """The configurations: place of the word, what stands before the value in it, the value."""
    for place, (word, following) in enumerate(zip(words, [*words[1:], ""], strict=True)):
        name, equals, value = word.partition("=")
        if name in ("--config", "-c") and (value or following):
            yield (place, f"{name}=", value) if equals else (place + 1, "", following)


def _faults(node: Any, key: str) -> Iterator[tuple[Any, str]]:
    """What is refused below a key, and where."""
    if node is None:
        return
    if isinstance(node.value, str):
        meant = _misread(node, key)
        if meant is not None:
            yield node, f"{key}: {node.value} would be read as {meant}: put it in quotes"
        return
    seen = set()
    for part in node.value:
        inner, value = part if isinstance(part, tuple) else (None, part)
        name = inner.value if inner is not None and isinstance(inner.value, str) else None
        if name in seen:
            yield inner, f"{name} is given twice"
        seen |= {name} - {None}
        yield from _faults(value, key if name is None else name)


def _misread(node: Any, key: str) -> Any:
    """The number that YAML makes of one written otherwise, where that matters; else None."""
    if node.style is not None or node.tag not in _NUMBERS:
        return None
    import yaml

    meant = yaml.safe_load(node.value)
    matters = key in _NAMES or _OTHER_BASE.fullmatch(node.value)
    return meant if matters and str(meant) != node.value else None
