"""Models of transformers from the Hub or a folder, whole and in float32."""

import json
from typing import Any

import torch
import xxhash

from lightsae.error_messages import reason
from lightsae.errors import LightsaeError


def load_pretrained(kind: Any, name: str, *, expected: str, device: str = "cpu") -> Any:
    """A model in eval mode, from safetensors.

    Args:
        kind: Class of transformers.
        name: Name on the Hub, or folder.
        expected: What it should be, for messages.
        device: Where it runs.

    Raises:
        LightsaeError: If it cannot be loaded, a weight is missing (transformers would draw it at
            random), or there is no such device.
    """
    try:
        model, info = kind.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:
        raise LightsaeError(
            f"model {name!r} cannot be loaded, expected {expected}: {reason(error)}"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise LightsaeError(
            f"model {name!r} lacks {len(missing)} weights of {expected}, such as {missing[0]}"
        )
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise LightsaeError(f"device is {device!r}: {reason(error)}") from error


def config_hash(model: Any) -> str:
    """Hash of a model's configuration, which its weights do not tell.

    Args:
        model: Of transformers.
    """
    told = model.config.to_diff_dict()
    told.pop("transformers_version", None)
    return text_hash(json.dumps(told, sort_keys=True, default=str))


def text_hash(text: str) -> str:
    """Hash of a text.

    Example:
        >>> text_hash("a")
        'e6c632b61e964e1f'
    """
    return xxhash.xxh3_64_hexdigest(text.encode())
