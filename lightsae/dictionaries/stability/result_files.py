"""The two files of a `StabilityResult`, checked when they are read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from lightsae.dictionaries.matching.co_firing import MEASURES
from lightsae.dictionaries.stability.baselines import RandomStability
from lightsae.dictionaries.stability.latent_stability import Cut, require_thresholds
from lightsae.dictionaries.stability.reconstruction_share import ReconstructionShares
from lightsae.dictionaries.stability.seed_latents import SeedLatents
from lightsae.dictionaries.subspaces.between_seeds import SubspaceComparison
from lightsae.errors import LightsaeError
from lightsae.files import write_whole
from lightsae.typed_json import plain, read_json, typed

FORMAT = 1
JSON, TENSORS = "stability.json", "stability.safetensors"
_GROUPS = ("similarity", "columns")


class Described(NamedTuple):
    """What the JSON holds of a result, as `StabilityResult` names it."""

    names: tuple[str, ...]
    d_in: int
    rows: int
    thresholds: tuple[float, ...]
    cut: Cut
    baselines: dict[str, RandomStability]
    shuffled: dict[str, RandomStability]
    reconstruction: tuple[ReconstructionShares, ...]
    unstable: SubspaceComparison
    weighted: SubspaceComparison


def write_result(
    folder: Path, described: Described, seeds: Sequence[SeedLatents], summary: dict[str, Any]
) -> None:
    """Write both files, each replaced as a whole; the JSON names the digest of the other.

    Raises:
        LightsaeError: If the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for place, each in enumerate(seeds):
        tensors |= {f"{place}/firings": each.firings, f"{place}/stable": each.stable}
        for group in _GROUPS:
            tensors |= {
                f"{place}/{group}/{name}": one for name, one in getattr(each, group).items()
            }
    content = serialize_tensors(
        {name: each.detach().cpu().clone().contiguous() for name, each in tensors.items()}
    )
    digest = xxhash.xxh3_64_hexdigest(content)
    text = json.dumps(
        {"format": FORMAT, "xxh3": digest, **plain(described), "summary": summary},
        indent=1, allow_nan=False,
    )  # fmt: skip
    write_whole(folder / TENSORS, content)
    write_whole(folder / JSON, text + "\n")


def read_result(folder: Path) -> tuple[Described, tuple[SeedLatents, ...]]:
    """Read both files.

    Raises:
        LightsaeError: If one is missing, malformed, or not of the other.
    """
    path = folder / JSON
    found = read_json(path, "stability", FORMAT)
    digest = found.pop("xxh3", None)
    found.pop("summary", None)
    described = typed(Described, found, str(path))
    _require_lengths(described, path)
    content = _bytes(folder / TENSORS)
    if xxhash.xxh3_64_hexdigest(content) != digest:
        raise LightsaeError(f"{path} and {TENSORS} are not of one result, or were altered")
    try:
        tensors = parse_tensors(content)
    except SafetensorError as error:
        raise LightsaeError(f"{folder / TENSORS} is no safetensors file: {error}") from error
    return described, _seeds(tensors, len(described.names), folder / TENSORS)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LightsaeError(f"{path} cannot be read: {error.strerror}") from error


def _require_lengths(described: Described, path: Path) -> None:
    """Refuse thresholds that are none, and lists that are not one of each or of each seed."""
    seeds, taus = len(described.names), len(described.thresholds)
    if seeds < 2 or taus < 1:
        raise LightsaeError(f"{path}: names holds {seeds} and thresholds {taus}, expected 2 and 1")
    try:
        require_thresholds(described.thresholds)
    except LightsaeError as error:
        raise LightsaeError(f"{path}: {error}") from error
    spans = {"unstable": described.unstable, "weighted": described.weighted}
    of_seeds = {
        "reconstruction": described.reconstruction,
        **{
            f"{group}.{name}": getattr(each, name)
            for group, each in spans.items()
            for name in ("counts", "ranks", "effective_ranks", "participation_ratios")
        },
    }
    of_taus = {
        f"{group}.{name}.{part}": points
        for group in ("baselines", "shuffled")
        for name, each in getattr(described, group).items()
        for part, points in each._asdict().items()
    }
    for wanted, lists in ((seeds, of_seeds), (taus, of_taus)):
        for name, each in lists.items():
            if len(each) != wanted:
                raise LightsaeError(f"{path}: {name} holds {len(each)} items, expected {wanted}")
    for group, each in spans.items():
        if any(not 0 <= place < seeds for pair in each.pairs for place in pair.seeds):
            raise LightsaeError(f"{path}: {group}.pairs names a seed beyond {seeds - 1}")


def _seeds(tensors: dict[str, Tensor], seeds: int, path: Path) -> tuple[SeedLatents, ...]:
    parts: list[dict[str, dict[str, Tensor]]] = [
        {"": {}, **{group: {} for group in _GROUPS}} for _ in range(seeds)
    ]
    for key, tensor in tensors.items():
        place, _, rest = key.partition("/")
        group, _, name = (
            rest.rpartition("/") if rest not in ("firings", "stable") else ("", "", rest)
        )
        if place not in map(str, range(seeds)) or group not in ("", *_GROUPS):
            raise LightsaeError(f"{path} holds {key!r}, expected latents of {seeds} seeds")
        parts[int(place)][group][name] = tensor
    found = tuple(_latents(part, place, seeds, path) for place, part in enumerate(parts))
    for group in _GROUPS:
        if len({frozenset(getattr(each, group)) for each in found}) > 1:
            raise LightsaeError(f"{path}: seeds differ in {group}, expected the same of each")
    return found


def _latents(part: dict[str, dict[str, Tensor]], place: int, seeds: int, path: Path) -> SeedLatents:
    own, similarity, columns = part[""], part["similarity"], part["columns"]
    unknown = sorted(set(similarity) - {"cosine", *MEASURES})
    if unknown:
        raise LightsaeError(f"{path}: {place}/similarity/{unknown[0]} is unknown")
    if set(own) != {"firings", "stable"} or "cosine" not in similarity:
        raise LightsaeError(
            f"{path}: of seed {place}, firings, stable or similarity/cosine is missing"
        )
    d_sae = len(own["firings"].flatten())
    wanted = {
        "firings": (own["firings"], [d_sae], torch.int64),
        "stable": (own["stable"], [d_sae], torch.bool),
        **{f"similarity/{name}": (each, [d_sae, seeds - 1], torch.float64)
           for name, each in similarity.items()},
        **{f"columns/{name}": (each, [d_sae], torch.float64) for name, each in columns.items()},
    }  # fmt: skip
    for name, (tensor, shape, dtype) in wanted.items():
        if list(tensor.shape) != shape or tensor.dtype != dtype:
            raise LightsaeError(
                f"{path}: {place}/{name} is {list(tensor.shape)} {tensor.dtype}, expected {shape} "
                f"{dtype}"
            )
    ordered = {name: similarity[name] for name in ("cosine", *MEASURES) if name in similarity}
    return SeedLatents(own["firings"], own["stable"], ordered, columns)
