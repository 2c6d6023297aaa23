"""The manifest of a folder of shards, and its validation.

A folder holds `manifest.json` and `shard-00000.h5`, ... Each shard has
    activations   [rows, d_in]   float16 | bfloat16 (uint16 with an attribute) | float32
    sample_index  [rows] int64   token_index [rows] int64   label [rows] int64, optional
    chunk_hash    [chunks] uint64: xxh3 of each chunk's rows of `activations`
    index_hash    [chunks] uint64: xxh3 of the same rows of the three index datasets
    mean, m2      [d_in] float64: mean and summed squared deviation of the shard's rows
Rows are chunked by whole rows and not compressed. See docs of `Manifest` for the JSON.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lightsae.activations.shards.checked_read import checksum
from lightsae.activations.shards.dtypes import storage
from lightsae.activations.shards.json_values import plain
from lightsae.activations.shards.norm_histogram import LEAST_BIN, MOST_BIN, ZERO
from lightsae.errors import LightsaeError
from lightsae.files import replacing

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
# Among the settings: where the images were read from, which may move.
IMAGES_FROM = "images_from"
# A chunk of HDF5 has less than 4 GiB, and at least one row.
_MOST_WIDTH = (1 << 30) - 1
_MOST_ROWS = (1 << 63) - 1
_DEEPEST = 50
_SHARD_NAME = re.compile(r"shard-\d{5,9}\.h5", re.ASCII)
_DIGESTED = ("format_version", "d_in", "dtype", "layer", "tokens", "weights_hash")


@dataclass(frozen=True)
class ShardEntry:
    """One shard as the manifest lists it.

    Attributes:
        name: File name inside the folder.
        rows: Number of rows.
        digest: xxh3 over the shard's own hashes and statistics, 16 hexadecimal digits.
    """

    name: str
    rows: int
    digest: str


@dataclass
class Manifest:
    """What a folder of shards holds.

    Attributes:
        d_in: Width of a row.
        dtype: Stored dtype: float16, bfloat16 or float32.
        model: Name of the source model.
        weights_hash: Hash of the source model's weights, or empty.
        layer: Module whose output was taken.
        tokens: Token kind: class, patch, pooled or all.
        has_labels: Whether each shard has a `label` dataset.
        classes: Names of the labels, or empty.
        complete: Whether extraction finished.
        rows: Number of rows in all shards.
        mean: Per-dimension mean of all rows, `d_in` numbers (empty while there are no rows).
        scale: Per-dimension standard deviation, likewise.
        norms: Rows per bin of their norm; see `shards.norm_histogram.count_norms`.
        shards: The shards, in the order written.
        settings: What made the folder; another value for any key is refused on resuming, but for
            `images_from`, which says where the images lay.
        progress: Where to resume, and what was skipped.
        format_version: Version of this format.

    Example:
        >>> manifest = Manifest(d_in=2, dtype="float16", model="vit", layer="blocks.1")
        >>> Manifest.from_json(manifest.to_json(), "here") == manifest
        True
        >>> Manifest.from_json('{"d_in": 0}', "here")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: here: format_version is missing
    """

    d_in: int
    dtype: str
    model: str = ""
    weights_hash: str = ""
    layer: str = ""
    tokens: str = ""
    has_labels: bool = False
    classes: list[str] = field(default_factory=list)
    complete: bool = False
    rows: int = 0
    mean: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    norms: dict[str, int] = field(default_factory=dict)
    shards: list[ShardEntry] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """The manifest as JSON text, with a checksum of its own."""
        data = asdict(self)
        return json.dumps(data | {"checksum": _checksum(data)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> "Manifest":
        """Read and validate JSON text.

        Args:
            text: The JSON.
            source: Name of the file, for messages.

        Returns:
            A manifest whose every field was checked.

        Raises:
            LightsaeError: Naming the field, its value and what was expected; or telling that the
                text is not what was written, if it has a checksum.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise LightsaeError(f"{source}: not valid JSON: {error}") from error
        if not isinstance(data, dict):
            raise LightsaeError(f"{source}: expected a JSON object")
        said = data.pop("checksum", None)
        _check_version(data, source)
        _check_fields(data, source)
        entries = [_shard_entry(item, i, source) for i, item in enumerate(data["shards"])]
        manifest = cls(**{**data, "shards": entries})
        _check_consistency(manifest, source)
        if said not in (None, _checksum(asdict(manifest))):
            raise LightsaeError(
                f"{source}: was altered after it was written; if that was meant, remove its line "
                '"checksum"'
            )
        mean, scale = ([float(x) for x in numbers] for numbers in (manifest.mean, manifest.scale))
        return replace(manifest, mean=mean, scale=scale)

    def checked(self, source: str) -> "Manifest":
        """The manifest as it would be read back.

        Args:
            source: Its name, for messages.

        Raises:
            LightsaeError: If it could not be.

        Example:
            >>> Manifest(d_in=2, dtype="float16", layer=3).checked("manifest")
            Traceback (most recent call last):
            ...
            lightsae.errors.LightsaeError: manifest: layer is 3, expected a string of whole \
characters
        """
        data = {name: plain(value, f"{source}: {name}") for name, value in asdict(self).items()}
        return Manifest.from_json(json.dumps(data), source)

    def digest(self) -> str:
        """Hash of what the rows are, to tell a folder from another that took its place.

        Returns:
            xxh3 over `format_version`, `d_in`, `dtype`, `layer`, `tokens`, `weights_hash` and
            every shard's name, rows and digest, 16 hexadecimal digits. No file but the manifest
            is read: a shard's digest covers the hashes of its chunks.

        Example:
            >>> manifest = Manifest(d_in=2, dtype="float16", layer="blocks.1")
            >>> manifest.digest() == Manifest(d_in=2, dtype="float16", layer="blocks.2").digest()
            False
        """
        described = [getattr(self, name) for name in _DIGESTED]
        shards = [[entry.name, entry.rows, entry.digest] for entry in self.shards]
        return f"{checksum(json.dumps([*described, shards]).encode()):016x}"

    def save(self, folder: str | Path) -> None:
        """Replace the folder's manifest in one step."""
        with replacing(Path(folder) / MANIFEST_NAME) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """Read the manifest of a folder.

        Args:
            folder: A folder of shards.

        Returns:
            The validated manifest, complete or not.

        Raises:
            LightsaeError: If the folder or its manifest is missing or wrong.
        """
        path = Path(folder) / MANIFEST_NAME
        hint = "`lightsae extract` makes one"
        if not path.parent.is_dir():
            raise LightsaeError(f"{folder}: no such folder of activation shards; {hint}")
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise LightsaeError(f"{folder}: has no {MANIFEST_NAME}; {hint}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise LightsaeError(f"{path}: cannot be read: {error}") from error
        return cls.from_json(text, str(path))


def checked_progress(progress: Any) -> dict[str, Any]:
    """Progress as a manifest can hold it.

    Raises:
        LightsaeError: If it cannot.

    Example:
        >>> checked_progress([1])
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: progress is [1], expected an object, nested at most 50 deep
    """
    found: dict[str, Any] = plain(progress, "progress")
    passes, expected = _CHECKS["progress"]
    if not passes(found):
        raise LightsaeError(f"progress is {_brief(found)}, expected {expected}")
    return found


def _checksum(data: dict[str, Any]) -> str:
    """xxh3 of the fields, 16 hexadecimal digits."""
    return f"{checksum(json.dumps(data).encode()):016x}"


def _is_count(value: Any) -> bool:
    """A non-negative integer of 63 bits; bool is none."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_ROWS


def _is_numbers(value: Any) -> bool:
    """A list of finite numbers; an integer may be larger than any float."""
    return isinstance(value, list) and all(
        isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= sys.float_info.max
        for x in value
    )


def _is_counts(value: Any) -> bool:
    """Numbers of rows by bins of their norm."""
    return isinstance(value, dict) and all(
        _is_bin(name) and _is_count(count) and count > 0 for name, count in value.items()
    )


def _is_bin(name: str) -> bool:
    """Name of a bin of norms."""
    integer = re.fullmatch("-?[0-9]{1,4}", name, re.ASCII) is not None
    return name == ZERO or (integer and LEAST_BIN <= int(name) <= MOST_BIN)


def _is_strings(value: Any) -> bool:
    """A list of strings."""
    return isinstance(value, list) and all(isinstance(x, str) for x in value)


def _is_text(value: Any) -> bool:
    """A string that can be printed; JSON may escape half of a character."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _is_object(value: Any) -> bool:
    """An object that is not nested deeper than can be copied and written."""
    inside: list[Any] = [value] if isinstance(value, dict) else []
    for _ in range(_DEEPEST):
        found = [item.values() if isinstance(item, dict) else item for item in inside]
        inside = [x for items in found for x in items if isinstance(x, dict | list)]
        if not inside:
            return isinstance(value, dict)
    return False


_Check = tuple[Callable[[Any], bool], str]
_STRING: _Check = (_is_text, "a string of whole characters")
_FLAG: _Check = (lambda value: isinstance(value, bool), "true or false")
_OBJECT: _Check = (_is_object, f"an object, nested at most {_DEEPEST} deep")
_NORMS = f"an object of positive integers named zero or by integers {LEAST_BIN} to {MOST_BIN}"
_CHECKS: Mapping[str, _Check] = {
    "d_in": (
        lambda value: _is_count(value) and 0 < value <= _MOST_WIDTH,
        f"a positive integer up to {_MOST_WIDTH}",
    ),
    "dtype": _STRING,
    "model": _STRING,
    "weights_hash": _STRING,
    "layer": _STRING,
    "tokens": _STRING,
    "has_labels": _FLAG,
    "classes": (_is_strings, "a list of strings"),
    "complete": _FLAG,
    "rows": (_is_count, "a non-negative integer"),
    "mean": (_is_numbers, "a list of finite numbers"),
    "scale": (_is_numbers, "a list of finite numbers"),
    "norms": (_is_counts, _NORMS),
    "shards": (lambda value: isinstance(value, list), "a list"),
    "settings": _OBJECT,
    "progress": _OBJECT,
    "format_version": (_is_count, "a non-negative integer"),
}


def _check_version(data: dict[str, Any], source: str) -> None:
    """Refuse another version before anything else is looked at."""
    if "format_version" not in data:
        raise LightsaeError(f"{source}: format_version is missing")
    if data["format_version"] != FORMAT_VERSION:
        raise LightsaeError(
            f"{source}: format_version is {_brief(data['format_version'])}, "
            f"expected {FORMAT_VERSION}"
        )


def _check_fields(data: dict[str, Any], source: str) -> None:
    """Every field is there, known and of its kind."""
    names = [item.name for item in fields(Manifest)]
    for name in data.keys() - set(names):
        raise LightsaeError(f"{source}: unknown field {_brief(name)}")
    for name in names:
        if name not in data:
            raise LightsaeError(f"{source}: {name} is missing")
        passes, expected = _CHECKS[name]
        if not passes(data[name]):
            raise LightsaeError(f"{source}: {name} is {_brief(data[name])}, expected {expected}")


def _shard_entry(item: Any, position: int, source: str) -> ShardEntry:
    """One validated entry of the shard list."""
    where = f"{source}: shards[{position}]"
    if not isinstance(item, dict) or item.keys() != {"name", "rows", "digest"}:
        raise LightsaeError(f"{where} is {_brief(item)}, expected name, rows and digest")
    name, rows, digest = item["name"], item["rows"], item["digest"]
    if not (isinstance(name, str) and _SHARD_NAME.fullmatch(name)):
        raise LightsaeError(
            f"{where}.name is {_brief(name)}, expected a file of this folder named like "
            f"{shard_name(position)}"
        )
    if not (_is_count(rows) and rows > 0):
        raise LightsaeError(f"{where}.rows is {_brief(rows)}, expected a positive integer")
    if not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{16}", digest)):
        raise LightsaeError(f"{where}.digest is {_brief(digest)}, expected 16 hexadecimal digits")
    return ShardEntry(name, rows, digest)


def _check_consistency(manifest: Manifest, source: str) -> None:
    """Fields that must agree with each other."""
    try:
        storage(manifest.dtype)
    except LightsaeError as error:
        raise LightsaeError(f"{source}: {error}") from None
    names = [entry.name for entry in manifest.shards]
    if len(set(names)) != len(names):
        raise LightsaeError(f"{source}: shards lists a name twice, expected each once")
    total = sum(entry.rows for entry in manifest.shards)
    if manifest.rows != total:
        raise LightsaeError(f"{source}: rows is {manifest.rows}, expected {total}, the shards' sum")
    if manifest.complete and not total:
        raise LightsaeError(f"{source}: complete is true, expected false while shards lists none")
    if sum(manifest.norms.values()) != total:
        raise LightsaeError(
            f"{source}: norms counts {sum(manifest.norms.values())} rows, expected {total}"
        )
    width = manifest.d_in if manifest.rows else 0
    for name in ("mean", "scale"):
        if len(getattr(manifest, name)) != width:
            raise LightsaeError(
                f"{source}: {name} has {len(getattr(manifest, name))} numbers, expected {width}"
            )


def _brief(value: Any) -> str:
    """A value short enough for one line."""
    try:
        text = repr(value)
    except RecursionError:
        return "nested without end"
    return text if len(text) <= 60 else f"{text[:57]}..."


def shard_name(position: int) -> str:
    """File name of the shard at a position.

    Example:
        >>> shard_name(3)
        'shard-00003.h5'
    """
    return f"shard-{position:05d}.h5"
