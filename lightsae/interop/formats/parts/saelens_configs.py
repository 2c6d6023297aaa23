"""Configurations of SAELens before version 6, as version 6 has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import setting

# What moved into `metadata`.
_METADATA = ("model_name", "hook_name", "hook_layer", "sae_lens_version", "dataset_path")


def as_of_version_6(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A configuration of any version in the words of version 6.

    Args:
        config: As written.
        path: The file, named in errors.

    Raises:
        LightsaeError: If it has an activation function or setting that version 6 has no word for.

    Example:
        >>> old = {"d_in": 4, "d_sae": 8, "activation_fn_str": "topk", "hook_point": "blocks.1",
        ...        "activation_fn_kwargs": {"k": 2}, "normalize_activations": False}
        >>> as_of_version_6(old, Path("cfg.json"))["architecture"]
        'topk'
    """
    metadata = setting(config, "metadata", dict, path, {})
    version = metadata.get("sae_lens_version") or config.get("sae_lens_version")
    if is_of_version_6(version):
        return dict(config) | {"metadata": metadata}
    found = dict(config)
    found["hook_name"] = found.get("hook_name", found.get("hook_point"))
    activation = found.get("activation_fn", found.get("activation_fn_str", "relu"))
    if activation not in ("relu", "topk"):
        raise LightsaeError(f"{path}: activation_fn is {activation!r}, expected relu or topk")
    found.setdefault("architecture", "standard")
    if activation == "topk":
        arguments = setting(found, "activation_fn_kwargs", dict, path)
        found |= {"architecture": "topk", "k": arguments.get("k")}
    if isinstance(found.get("normalize_activations"), bool):
        scaled = found["normalize_activations"]
        found["normalize_activations"] = "expected_average_only_in" if scaled else "none"
    return found | {"metadata": {name: found[name] for name in _METADATA if found.get(name)}}


def is_of_version_6(version: object) -> bool:
    """Whether SAELens reads a configuration of this version as it stands.

    Example:
        >>> [is_of_version_6(version) for version in ("6.54.12", "5.11.0", None)]
        [True, False, False]
    """
    major = version.partition(".")[0] if isinstance(version, str) else ""
    return major.isdecimal() and int(major) >= 6
