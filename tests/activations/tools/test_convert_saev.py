"""Folders of saev, old and new, and what one lacks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightsae.activations import Manifest
from lightsae.activations.tools.convert import convert
from lightsae.errors import LightsaeError

from .foreign_files import SAEV, VALUES, saev, saev_by_its_writer


def test_what_saev_says_is_kept(tmp_path: Path) -> None:
    convert(str(saev(tmp_path)), str(tmp_path / "out"), layer=7)
    manifest = Manifest.load(tmp_path / "out")
    assert (manifest.model, manifest.layer, manifest.tokens) == ("ViT-B-16", "7", "all")


def test_the_first_version_of_saev_is_read(
    tmp_path: Path, all_rows: Callable[[Path], np.ndarray]
) -> None:
    saev(tmp_path)
    old = {"vit_ckpt": "ViT-B-16", "layers": [3, 7], "n_patches_per_img": 3, "cls_token": True,
           "d_vit": 6}  # fmt: skip
    (tmp_path / "metadata.json").write_text(json.dumps(old))
    listed = [{"name": f"acts{i:06d}.bin", "n_imgs": n} for i, n in ((0, 20), (1, 10))]
    (tmp_path / "shards.json").write_text(json.dumps(listed))
    convert(str(tmp_path), str(tmp_path / "out"), layer=3, dtype="float32")
    assert np.array_equal(all_rows(tmp_path / "out"), (VALUES + 100).reshape(-1, 6))


@pytest.mark.parametrize("room", [20, 15])
@pytest.mark.parametrize("layers", [[3], [3, -2]])
@pytest.mark.parametrize("cls_token", [True, False])
def test_files_are_read_as_saev_fills_them(
    cls_token: bool,
    layers: list[int],
    room: int,
    tmp_path: Path,
    all_rows: Callable[[Path], np.ndarray],
) -> None:
    values = np.stack([VALUES + 100 * number for number in range(len(layers))], axis=1)
    about = {"vit_family": "clip", "vit_ckpt": "ViT-B-16", "layers": layers, "seed": 42,
             "n_patches_per_img": 4 - cls_token, "cls_token": cls_token, "d_vit": 6, "n_imgs": 30,
             "n_patches_per_shard": 4 * len(layers) * room + 1, "data": "none"}  # fmt: skip
    saev_by_its_writer(tmp_path, values, room, **about)
    convert(str(tmp_path), str(tmp_path / "out"), layer=layers[-1], dtype="float32")
    assert np.array_equal(all_rows(tmp_path / "out"), values[:, -1].reshape(-1, 6))
    assert Manifest.load(tmp_path / "out").tokens == ("all" if cls_token else "patch")


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("room", ["n_patches_per_shard", "max_tokens_per_shard"])
def test_the_newest_version_of_saev_is_read(
    room: str, listed: bool, tmp_path: Path, all_rows: Callable[[Path], np.ndarray]
) -> None:
    about = {"family": "clip", "ckpt": "ViT-B-16", "layers": [3], "content_tokens_per_example": 3,
             "cls_token": True, "d_model": 6, "n_examples": 30, room: 80, "protocol": "2.1",
             "dtype": "float32"}  # fmt: skip
    saev_by_its_writer(tmp_path, VALUES[:, None], 20, **about)
    if listed:
        files = [{"name": f"acts{i:06d}.bin", "n_examples": n} for i, n in ((0, 20), (1, 10))]
        (tmp_path / "shards.json").write_text(json.dumps(files))
    convert(str(tmp_path), str(tmp_path / "out"), dtype="float32")
    assert np.array_equal(all_rows(tmp_path / "out"), VALUES.reshape(-1, 6))


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ([], "metadata.json: holds list, expected an object"),
        ({**SAEV, "layers": ["3"]}, r"metadata.json: layers is \['3'\], expected whole numbers"),
        ({**SAEV, "d_vit": "6"}, "metadata.json: d_vit is '6', expected a whole number"),
        ({**SAEV, "d_vit": 0}, "metadata.json: d_vit is 0, expected 1 or more"),
        ({**SAEV, "dtype": "float16"}, "metadata.json: dtype is 'float16', expected 'float32'"),
        ({**SAEV, "cls_token": 1}, "metadata.json: cls_token is 1, expected true or false"),
        ({**SAEV, "n_patches_per_shard": 3}, "n_patches_per_shard is 3, expected 4 or more"),
        ({**SAEV, "n_imgs": 50}, "acts000002.bin: is missing"),
        ({**SAEV, "d_vit": 5}, r"acts000000.bin: is not \[20, 1, 4, 5\] float32, it has 1920 b"),
        *(
            ({name: SAEV[name] for name in SAEV if name != left_out}, f"has no .*{left_out}")
            for left_out in SAEV
        ),
    ],
)
def test_what_a_folder_of_saev_lacks_is_named(about: Any, says: str, tmp_path: Path) -> None:
    saev_by_its_writer(tmp_path, VALUES[:10, None], 20)
    (tmp_path / "acts000001.bin").write_bytes((tmp_path / "acts000000.bin").read_bytes())
    (tmp_path / "metadata.json").write_text(json.dumps(about))
    with pytest.raises(LightsaeError, match=says):
        convert(str(tmp_path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        ("{", "shards.json: cannot be read: JSONDecodeError"),
        ("[]", "shards.json: lists no images"),
        ("[3]", "shards.json: shard 0 is 3, expected an object"),
        ('[{"n_ex": 20}]', "shards.json: shard 0: has no name"),
        ('[{"name": "acts000000.bin"}]', "shards.json: shard 0: has no n_examples or n_ex or n_i"),
        ('[{"name": "acts000000.bin", "n_ex": -1}]', "n_ex is -1, expected 0 or more"),
    ],
)
def test_a_list_of_shards_that_is_none_is_named(listed: str, says: str, tmp_path: Path) -> None:
    saev(tmp_path)
    (tmp_path / "shards.json").write_text(listed)
    with pytest.raises(LightsaeError, match=says):
        convert(str(tmp_path), str(tmp_path / "out"), layer=3)
    assert not (tmp_path / "out").exists()
