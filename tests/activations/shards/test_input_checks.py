"""Rows and indices as users have them: tensors, numpy arrays and lists."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightsae.activations import Manifest, ShardSet, ShardWriter
from lightsae.errors import LightsaeError

VALUES = np.arange(12.0).reshape(3, 4)
KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "tensor": torch.from_numpy,
    "tensor-that-needs-a-gradient": lambda a: (
        torch.from_numpy(a).requires_grad_() if a.dtype.kind == "f" else torch.from_numpy(a)
    ),
    "array": lambda a: a,
    "list": lambda a: a.tolist(),
    "list-of-arrays": list,
    "list-of-tensors": lambda a: list(torch.from_numpy(a)),
    "tuple": lambda a: tuple(a.tolist()),
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "reversed": lambda a: a[::-1].copy()[::-1],
    "column-major": np.asfortranarray,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "narrow": lambda a: a.astype(np.float16 if a.dtype.kind == "f" else np.uint8),
    "wide": lambda a: a.astype(np.longdouble if a.dtype.kind == "f" else np.uint64),
}


def written(folder: Path, *columns: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    manifest = Manifest(d_in=4, dtype="float32", has_labels=len(columns) == 4, **options)
    with ShardWriter(folder, manifest) as writer:
        writer.write(*columns)
    shards = ShardSet(folder)
    rows, index = shards.read_activations([0])[0], shards.read_index(0)
    shards.close()
    return rows, index


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_indices_of_any_kind_are_stored(tmp_path: Path, kind: str) -> None:
    given = KINDS[kind]
    columns = [np.array([5, 6, 7]), np.array([0, 1, 2]), np.array([3, 2, 1])]
    rows, index = written(tmp_path, given(VALUES), *map(given, columns))
    assert np.array_equal(rows, VALUES)
    assert np.array_equal(index, columns)


def test_an_open_file_is_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", VALUES)
    rows, _ = written(tmp_path / "shards", np.load(tmp_path / "rows.npy", mmap_mode="r"), [0, 1, 2])
    assert np.array_equal(rows, VALUES)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_arrays_are_rounded_as_tensors_are(tmp_path: Path, dtype: str) -> None:
    rows = np.random.default_rng(0).standard_normal((50, 4))
    for name, given in (("array", rows), ("tensor", torch.from_numpy(rows))):
        with ShardWriter(tmp_path / name, Manifest(d_in=4, dtype=dtype)) as writer:
            writer.write(given, range(50))
    digests = {Manifest.load(tmp_path / name).digest() for name in ("array", "tensor")}
    assert len(digests) == 1


ONE = [[0.0] * 4]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((VALUES[0], [0]), r"activations is float64 \[4\], expected floats \[B, 4\]"),
        ((VALUES[:, :3], [0, 1, 2]), r"activations is float64 \[3, 3\], expected floats \[B, 4\]"),
        ((VALUES.astype(int), [0, 1, 2]), r"activations is int64 \[3, 4\], expected floats"),
        ((VALUES.astype(complex), [0, 1, 2]), r"activations is complex128 \[3, 4\], expected fl"),
        (([["a"] * 4], [0]), r"activations is <U1 \[1, 4\], expected floats \[B, 4\]"),
        (([[0.0], [1.0, 2.0]], [0, 1]), "activations is a list that is no array: "),
        ((None, [0]), r"activations is object \[\], expected floats \[B, 4\]"),
        (([], []), r"activations is float64 \[0\], expected floats \[B, 4\]"),
        ((VALUES, [0, 1]), r"sample_index is int64 \[2\], expected integers \[3\]"),
        ((VALUES, 5), r"sample_index is int64 \[\], expected integers \[3\]"),
        ((VALUES, [0.0, 1.0, 2.0]), r"sample_index is float64 \[3\], expected integers \[3\]"),
        ((VALUES, torch.zeros(3)), r"sample_index is float32 \[3\], expected integers \[3\]"),
        ((VALUES, np.array([0, 1, 2**63], np.uint64)), r"holds 9223372036854775808, expected num"),
        ((VALUES, [0, 1, 2**64]), r"sample_index is object \[3\], expected integers \[3\]"),
        ((VALUES, [0, 1, 2], None, ["cat", "dog", "cat"]), r"label is <U3 \[3\], expected integ"),
        ((VALUES, [0, 1, 2], None, [1, None, 2]), r"label is object \[3\], expected integers \[3"),
        ((VALUES, [0, 1, 2], None, [[1], [0], [2]]), r"label is int64 \[3, 1\], expected integ"),
        (([[0, 0, np.nan, 0]], [8], [5], [0]), r"sample 8, token 5, .* activation \[2\] is nan"),
    ],
    ids=[
        "one-dimension",
        "width",
        "integers",
        "complex",
        "strings",
        "ragged",
        "none",
        "empty",
        "count",
        "scalar",
        "float-index",
        "float-tensor-index",
        "too-large",
        "far-too-large",
        "names-as-labels",
        "missing-label",
        "column-of-labels",
        "nan",
    ],
)
def test_what_cannot_be_stored_is_named(
    tmp_path: Path, columns: tuple[Any, ...], message: str
) -> None:
    manifest = Manifest(d_in=4, dtype="float32", has_labels=len(columns) == 4)
    writer = ShardWriter(tmp_path, manifest)
    with pytest.raises(LightsaeError, match=message):
        writer.write(*columns)
    writer.abort()


def test_names_as_labels_are_told_where_they_belong(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, Manifest(d_in=4, dtype="float32", has_labels=True))
    with pytest.raises(
        LightsaeError, match="give numbers, and the names as the manifest's classes"
    ):
        writer.write(ONE, [0], label=["cat"])
    writer.abort()


@pytest.mark.parametrize("has_labels", [True, False])
def test_labels_are_given_as_the_manifest_says(tmp_path: Path, has_labels: bool) -> None:
    writer = ShardWriter(tmp_path, Manifest(d_in=4, dtype="float32", has_labels=has_labels))
    given, told = (None, "no label is given") if has_labels else ([1], "label is given")
    with pytest.raises(LightsaeError, match=f"{told}, the manifest has has_labels = {has_labels}"):
        writer.write(ONE, [0], label=given)
    writer.abort()


def test_no_rows_may_be_empty_lists(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, Manifest(d_in=4, dtype="float32", has_labels=True)) as writer:
        writer.write(VALUES, [0, 1, 2], label=[1, 2, 3])
        writer.write(VALUES[:0], [], [], [])
    assert Manifest.load(tmp_path).rows == 3


def test_what_is_refused_leaves_the_writer_as_it_was(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, Manifest(d_in=4, dtype="float32")) as writer:
        writer.write(VALUES, [0, 1, 2])
        with pytest.raises(LightsaeError):
            writer.write(VALUES[:, :3], [3, 4, 5])
        writer.write(VALUES, [3, 4, 5])
    assert Manifest.load(tmp_path).rows == 6
