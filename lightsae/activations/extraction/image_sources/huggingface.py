"""Rows of a Hugging Face dataset as (image, label)."""

from pathlib import Path
from typing import Any

from lightsae.activations.extraction.image_sources.labels import check_range
from lightsae.activations.extraction.models import closest
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.extras import require

_NO_STREAM = "data.arguments: {} is a stream, expected rows by number: leave streaming out"


class HuggingFace:
    """A split of a Hugging Face dataset.

    Args:
        source: Folder that `save_to_disk` wrote, or what `datasets.load_dataset` takes: a name on
            the hub, a folder of parquet or image files.
        split: Which split; needed where there are several.
        image: Column of images; by default the only one of that kind.
        label: Column of integer labels; by default the only one with class names, if any. Labels
            that are all -1, as in many test sets, are none.
        arguments: Further keyword arguments of `load_dataset`.
        labels: Whether to look for labels.

    Attributes:
        classes: Names of the labels, or empty.
        fingerprint: That of the dataset, which is another one for other rows.

    Raises:
        LightsaeError: If there is no such dataset, split or column; the closest are offered.

    Example:
        >>> import datasets, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> datasets.Dataset.from_dict({"pixels": [[1]], "kind": [4]}).save_to_disk(folder)
        >>> HuggingFace(folder, image="pixel")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: data.image_key: ... no column 'pixel'; closest: 'pixels'
    """

    def __init__(
        self,
        source: str,
        split: str | None = None,
        image: str | None = None,
        label: str | None = None,
        arguments: dict[str, Any] | None = None,
        *,
        labels: bool = True,
    ) -> None:
        datasets = require("datasets", extra="data")
        rows = _one_split(_opened(datasets, source, split, arguments or {}), source, split)
        _check_rows(datasets, rows, source)
        fingerprint = rows._fingerprint
        # One that was saved with the rows would give numbers for images.
        rows = rows.with_format(None)
        kinds = {name: type(kind).__name__ for name, kind in rows.features.items()}
        self._image = _column(image, "image_key", kinds, "Image", source)
        if self._image is None:
            raise LightsaeError(
                f"data.image_key is needed: {source} has {', '.join(kinds)}, "
                "of which not exactly one is a column of images"
            )
        self._label = None
        if labels:
            self._label = _column(label, "label_key", kinds, "ClassLabel", source)
        if self._label is not None and _all_unknown(rows, self._label):
            self._label = None
        wanted = [self._image] if self._label is None else [self._image, self._label]
        self._rows = rows.select_columns(wanted)
        feature = rows.features[self._image]
        if not getattr(feature, "decode", True):
            decoded = datasets.Image(mode=getattr(feature, "mode", None))
            self._rows = self._rows.cast_column(self._image, decoded)
        names = getattr(rows.features.get(self._label), "names", None)
        self.classes: list[str] = list(names or [])
        if self._label is not None:
            self._check_labels(rows.unique(self._label), f"data.label_key: {source}: {self._label}")
        self.fingerprint = f"{fingerprint} {self._image} {self._label}"

    def _check_labels(self, found: list[Any], where: str) -> None:
        """Each row has a label, which is that of a class if they are named."""
        if None in found:
            raise LightsaeError(
                f"{where} is None in some rows, expected an integer; data.labels false takes none"
            )
        if self.classes:
            check_range(where, found, len(self.classes))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._rows)

    def __getitem__(self, position: int) -> Any:
        """The image, with its label where there are labels."""
        row = self._rows[position]
        image = row[self._image]
        if image is None:
            raise ValueError(f"its {self._image} is None, expected an image")
        return image if self._label is None else (image, row[self._label])


def _opened(datasets: Any, source: str, split: str | None, arguments: dict[str, Any]) -> Any:
    """The dataset, or all its splits by name."""
    if arguments.get("streaming"):
        raise LightsaeError(_NO_STREAM.format(source))
    folder = Path(source)
    try:
        if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
            if arguments:
                raise LightsaeError(
                    f"data.arguments {arguments}: are for load_dataset, {source} was saved to disk"
                )
            return datasets.load_from_disk(source)
        found = datasets.load_dataset(source, **arguments)
    except LightsaeError:
        raise
    except Exception as error:
        raise LightsaeError(f"data.huggingface: cannot open {source}: {reason(error)}") from error
    return found


def _one_split(found: Any, source: str, split: str | None) -> Any:
    """The rows of the split that was asked for, or of the only one."""
    if not isinstance(found, dict):
        if split is not None and split != str(found.split):
            raise LightsaeError(f"data.split is {split!r}: {source} is one set without splits")
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split is None:
        raise LightsaeError(f"data.split is needed: {source} has {', '.join(found)}")
    if split not in found:
        raise LightsaeError(
            f"data.split: {source} has no {split!r}{closest(split, found)} "
            f"(it has {', '.join(found)})"
        )
    return found[split]


def _check_rows(datasets: Any, rows: Any, source: str) -> None:
    """Refuse what has no rows by number."""
    if isinstance(rows, datasets.IterableDataset):
        raise LightsaeError(_NO_STREAM.format(source))
    if not isinstance(rows, datasets.Dataset):
        raise LightsaeError(
            f"data.arguments: {source} gives a {type(rows).__name__}, expected one dataset or a "
            "dictionary of splits"
        )


def _column(
    name: str | None, option: str, kinds: dict[str, str], kind: str, source: str
) -> str | None:
    """The column asked for, or the only one of its kind."""
    if name is None:
        found = [column for column, is_ in kinds.items() if is_ == kind]
        return found[0] if len(found) == 1 else None
    if name not in kinds:
        raise LightsaeError(f"data.{option}: {source} has no column {name!r}{closest(name, kinds)}")
    return name


def _all_unknown(rows: Any, label: str) -> bool:
    """Whether a column of labels has -1 alone, which stands for no label."""
    labels = rows.select_columns([label])
    return bool(labels[:1][label] == [-1] and labels.unique(label) == [-1])
