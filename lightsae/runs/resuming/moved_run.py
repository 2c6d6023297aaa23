"""A run folder that was moved: the paths that a `ModelCheckpoint` keeps are those of now."""

from pathlib import Path
from typing import Any

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


def follow_moved_checkpoints(callbacks: Any, folder: Path) -> None:
    """Let callbacks find the checkpoints that lay beside the one that is read.

    Lightning forgets the best ones where the path of their folder has changed.

    Args:
        callbacks: States of callbacks in a checkpoint, changed in place.
        folder: Where that checkpoint lies now.

    Example:
        >>> state = {"dirpath": "/gone/checkpoints", "best_k_models": {}}
        >>> follow_moved_checkpoints({"ModelCheckpoint": state}, Path("/now/checkpoints"))
        >>> state["dirpath"]
        '/now/checkpoints'
    """
    for state in callbacks.values() if isinstance(callbacks, dict) else ():
        before = state.get("dirpath") if isinstance(state, dict) else None
        kept = state.get("best_k_models") if isinstance(state, dict) else None
        if not isinstance(before, str) or not isinstance(kept, dict) or Path(before).exists():
            continue
        if Path(before).name != folder.name or not all(
            (folder / Path(path).name).exists() for path in kept
        ):
            continue
        state["dirpath"] = str(folder)
        state["best_k_models"] = {_moved(path, before, folder): kept[path] for path in kept}
        for name in _PATHS:
            if isinstance(state.get(name), str):
                state[name] = _moved(state[name], before, folder)


def _moved(path: str, before: str, folder: Path) -> str:
    """A path below a folder that was moved."""
    return str(folder / Path(path).name) if Path(path).parent == Path(before) else path
