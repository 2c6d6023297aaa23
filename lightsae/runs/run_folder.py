"""A run folder: config.yaml, metrics.jsonl, checkpoints/last.ckpt and the trained sae/."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_only

from lightsae.activations.shards.folder_lock import lock_folder
from lightsae.errors import LightsaeError
from lightsae.files import replacing
from lightsae.folder_contents import require_no_other
from lightsae.runs.resuming.settings_comparison import Complete, changed_settings


class RunFolder:
    """Where a run keeps what it needs to go on.

    Args:
        path: The folder; made when something is first written.

    Example:
        >>> import tempfile
        >>> run = RunFolder(tempfile.mkdtemp())
        >>> run.claim({"seed_everything": 0, "model": {"d_sae": 64}})
        >>> run.checkpoint.parent.mkdir()
        >>> run.checkpoint.touch()
        >>> run.claim({"seed_everything": 0, "model": {"d_sae": 32}})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: ... model.d_sae was 64, is 32; choose another --run_dir
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config(self) -> Path:
        """The settings the run was started with."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per logged step of training."""
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """One JSON object per later validation or test."""
        return self.path / "evaluations.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The state from which the run goes on."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def codes(self) -> Path:
        """Predicted codes, a file per rank."""
        return self.path / "codes"

    @property
    def sae(self) -> Path:
        """The trained autoencoder."""
        return self.path / "sae"

    def claim(
        self,
        config: Mapping[str, Any],
        *,
        has_digest: bool = False,
        complete: Complete = dict,
    ) -> None:
        """Write the settings of a new run, or check that they are those of the run that is here.

        A run is here once it has a checkpoint; before, there is nothing to go on from.

        Args:
            config: Settings as plain values. All of them must stay as they are but those that say
                how long the run is, where it lies and what is shown of it.
            has_digest: Whether the checkpoint holds the digest of its shards: they may then lie
                elsewhere.
            complete: See `changed_settings`.

        Raises:
            LightsaeError: If the folder holds a run with other settings, naming each, or one whose
                settings are lost, or something else than a run, or cannot be written.
        """
        if self.checkpoint.exists():
            changed = changed_settings(
                self.settings(), config, has_digest=has_digest, complete=complete
            )
            if changed:
                raise LightsaeError(
                    f"{self.path} holds a run with other settings: {'; '.join(changed)}; "
                    "choose another --run_dir"
                )
        else:
            require_no_other(self.path, "a run")
            self._write(config)

    @rank_zero_only
    def _write(self, config: Mapping[str, Any]) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with replacing(self.config) as temporary:
                temporary.write_text(yaml.safe_dump(dict(config), sort_keys=False))
        except OSError as error:
            raise LightsaeError(f"{self.config} cannot be written: {error.strerror}") from error

    def settings(self) -> dict[str, Any]:
        """The settings that the run was started with.

        Raises:
            LightsaeError: If they are not there or cannot be read.
        """
        if not self.config.exists():
            raise LightsaeError(
                f"{self.config} is missing: nothing tells the settings of {self.checkpoint}; "
                "choose another --run_dir"
            )
        try:
            before = yaml.safe_load(self.config.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise LightsaeError(f"{self.config} cannot be read: {error}") from error
        if not isinstance(before, dict):
            raise LightsaeError(f"{self.config} does not hold the settings of a run")
        return before


def regularizer_of(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Name and weight of the regularizer that a run was trained with.

    Args:
        settings: Those of its `config.yaml`.

    Example:
        >>> made = {"class_path": "lightsae.sae.L1L2Ratio", "init_args": {"weight": 0.1}}
        >>> regularizer_of({"model": {"init_args": {"regularizer": made}}})
        {'name': 'L1L2Ratio', 'weight': 0.1}
    """
    found = (settings.get("model", {}).get("init_args") or {}).get("regularizer")
    if found is None:
        return None
    weight = (found.get("init_args") or {}).get("weight")
    name = str(found["class_path"]).rpartition(".")[2]
    return {"name": name, "weight": None if weight is None else float(weight)}


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep a second process out of a folder, and sweep away what a killed one left half-written.

    Args:
        folder: Made if it is not there. Ranks other than 0 are let in.

    Raises:
        LightsaeError: If another process writes to it, or it cannot be made.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with exclusive(folder), exclusive(folder):  # doctest: +ELLIPSIS
        ...     pass
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: ... is being written by another process
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        yield
        return
    lock = _lock(folder)
    try:
        for leftover in (*folder.glob(".*.tmp"), *folder.glob("checkpoints/.*.tmp")):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """A lock on the folder, or None on a file system that has none."""
    if folder.is_symlink() and not os.path.exists(folder):
        raise LightsaeError(f"{folder} is a link to a folder that is not there")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LightsaeError(f"{folder} cannot be made: {error.strerror}") from error
    try:
        return lock_folder(folder)
    except OSError:
        return None
