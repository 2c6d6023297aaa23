"""Attributes of samples, of which a sample may have several, from a CSV file."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.safe_files import read_bounded

_MOST_BYTES = 1 << 30
_VALUES = {"1": True, "true": True, "0": False, "false": False, "-1": False}


@dataclass(frozen=True, eq=False)
class AttributeTable:
    """Which attributes some samples have.

    Attributes:
        names: Of the attributes.
        samples: Numbers of the samples, ascending [n], int64.
        has: Which attributes each has [n, names], bool.
    """

    names: list[str]
    samples: Tensor
    has: Tensor

    def of(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Attributes of rows by their samples.

        Args:
            samples: Of each row the number of its sample [rows], int64.

        Returns:
            Which rows are of samples of the table, bool [rows], and the attributes of those.
        """
        place = torch.searchsorted(self.samples, samples).clamp(max=len(self.samples) - 1)
        known = self.samples[place] == samples
        return known, self.has[place[known]]


def read_attributes(path: str | Path) -> AttributeTable:
    r"""Read a CSV file: a line for each sample, a column for each attribute.

    UTF-8, with or without a byte-order mark. The first line is `sample` and the names of the
    attributes; values are 1 or true, and 0, -1 or false.

    Args:
        path: The file.

    Raises:
        LightsaeError: If it cannot be read, or a line is not as said; the line is told.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "attributes.csv"
        >>> _ = path.write_text("sample,striped,outdoors\n7,1,0\n2,0,1\n")
        >>> found = read_attributes(path)
        >>> found.names, found.samples, found.has
        (['striped', 'outdoors'], tensor([2, 7]), tensor([[False,  True],
                [ True, False]]))
    """
    path = Path(path)
    try:
        text = read_bounded(path, _MOST_BYTES).decode("utf-8-sig")
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(lines, [])]
        names = _names(header, path)
        rows: dict[int, list[bool]] = {}
        for line in lines:
            if line:
                where = f"{path}:{lines.line_num}"
                sample, has = _row(line, names, where)
                if sample in rows:
                    raise LightsaeError(f"{where}: sample {sample} is there twice")
                rows[sample] = has
    except UnicodeDecodeError as error:
        raise LightsaeError(f"{path} is not UTF-8: byte {error.start}") from error
    except csv.Error as error:
        raise LightsaeError(f"{path} is no CSV: {error}") from error
    if not rows:
        raise LightsaeError(f"{path} has no samples")
    samples, order = torch.tensor(list(rows)).sort()
    return AttributeTable(names, samples, torch.tensor(list(rows.values()))[order])


def _names(header: list[str], path: Path) -> list[str]:
    """Names of the attributes."""
    first, names = header[:1], header[1:]
    if first != ["sample"] or not names:
        raise LightsaeError(
            f"{path}:1: expected a header: sample and the names of attributes, with commas between"
        )
    for place, name in enumerate(names):
        if not name or name in names[:place]:
            raise LightsaeError(f"{path}:1: attribute {name!r} is empty or there twice")
    return names


def _row(line: list[str], names: list[str], where: str) -> tuple[int, list[bool]]:
    """Sample and attributes of a line."""
    if len(line) != len(names) + 1:
        raise LightsaeError(f"{where}: {len(line)} values, expected {len(names) + 1}")
    sample = line[0].strip()
    if not sample.isascii() or not sample.isdigit() or len(sample) > 18:
        raise LightsaeError(f"{where}: sample is {sample!r}, expected a number")
    has = []
    for name, value in zip(names, line[1:], strict=True):
        known = _VALUES.get(value.strip().lower())
        if known is None:
            raise LightsaeError(f"{where}: {name} is {value.strip()!r}, expected 0 or 1")
        has.append(known)
    return int(sample), has
