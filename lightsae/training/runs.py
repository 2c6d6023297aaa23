"""The folder of a run: config.yaml, metrics.jsonl, checkpoints/last.ckpt and the trained sae/."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_only

from lightsae.errors import LightsaeError
from lightsae.files import replacing

_FIXED_TRAINER_KEYS = (
    "precision",
    "accumulate_grad_batches",
    "devices",
    "num_nodes",
    "gradient_clip_val",
    "gradient_clip_algorithm",
)


class RunFolder:
    """Where a run keeps what it needs to go on.

    Args:
        path: The folder; made when something is first written.

    Example:
        >>> import tempfile
        >>> run = RunFolder(tempfile.mkdtemp())
        >>> run.claim({"seed_everything": 0, "model": {"d_sae": 64}})
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
        """One JSON object per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The state from which the run goes on."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def sae(self) -> Path:
        """The trained autoencoder."""
        return self.path / "sae"

    def claim(self, config: Mapping[str, Any]) -> None:
        """Write the settings of a new run, or check that they are those of the run that is here.

        Args:
            config: Settings as plain values, with the keys model, data, seed_everything, trainer.

        Raises:
            LightsaeError: If the folder holds a run with other settings, naming each.
        """
        if self.config.exists():
            self._require_same(config)
            return
        self._write(config)

    @rank_zero_only
    def _write(self, config: Mapping[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self.config) as temporary:
            temporary.write_text(yaml.safe_dump(dict(config), sort_keys=False))

    def _require_same(self, config: Mapping[str, Any]) -> None:
        try:
            before = yaml.safe_load(self.config.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise LightsaeError(f"{self.config} cannot be read: {error}") from error
        if not isinstance(before, dict):
            raise LightsaeError(f"{self.config} does not hold the settings of a run")
        was, now = _identity(before), _identity(config)
        changed = [
            f"{key} was {was.get(key)}, is {now.get(key)}"
            for key in sorted(was.keys() | now.keys())
            if was.get(key) != now.get(key)
        ]
        if changed:
            raise LightsaeError(
                f"{self.path} holds a run with other settings: {'; '.join(changed)}; "
                "choose another --run_dir"
            )


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make a run what it is, flat."""
    trainer = config.get("trainer") or {}
    kept = {
        "seed_everything": config.get("seed_everything"),
        "model": config.get("model"),
        "data": config.get("data"),
        "trainer": {key: trainer.get(key) for key in _FIXED_TRAINER_KEYS},
    }
    return dict(_flat("", yaml.safe_load(yaml.safe_dump(kept))))


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(prefix, value)]
    parts = ((f"{prefix}.{key}" if prefix else str(key), child) for key, child in value.items())
    return [pair for key, child in parts for pair in _flat(key, child)]
