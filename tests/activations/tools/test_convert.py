import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lightsae.activations import ActivationDataModule, Manifest, ShardSet
from lightsae.activations.mixing import label_chi_square
from lightsae.activations.tools.convert import convert
from lightsae.errors import LightsaeError

VALUES = np.random.default_rng(0).standard_normal((30, 4, 6), dtype=np.float32)
Save = Callable[[Path], Path]


def _npy(folder: Path) -> Path:
    np.save(folder / "a.npy", VALUES)
    return folder / "a.npy"


def _npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", acts=VALUES)
    return folder / "a.npz"


def _hdf5(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["acts"] = VALUES
    return folder / "a.h5"


def _pt(folder: Path) -> Path:
    torch.save({"acts": torch.from_numpy(VALUES), "step": 3}, folder / "a.pt")
    return folder / "a.pt"


def _safetensors(folder: Path) -> Path:
    save_file({"acts": torch.from_numpy(VALUES)}, folder / "a.safetensors")
    return folder / "a.safetensors"


def _saev(folder: Path, **changes: Any) -> Path:
    about = {"family": "clip", "ckpt": "ViT-B-16", "layers": [3, 7], "patches_per_ex": 3,
             "cls_token": True, "d_model": 6, "n_ex": 30, "dtype": "float32"}  # fmt: skip
    both = np.stack([VALUES + 100, VALUES], axis=1)
    for number, part in enumerate((both[:20], both[20:])):
        part.tofile(folder / f"acts{number:06d}.bin")
    listed = [{"name": f"acts{i:06d}.bin", "n_ex": n} for i, n in ((0, 20), (1, 10))]
    (folder / "metadata.json").write_text(json.dumps({**about, **changes}))
    (folder / "shards.json").write_text(json.dumps(listed))
    return folder


def _saelens(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"blocks.3.hook": datasets.Array2D((4, 6), "float32"),
         "token_ids": datasets.Sequence(datasets.Value("int32"))}
    )  # fmt: skip
    rows = {"blocks.3.hook": VALUES, "token_ids": [[0] * 4] * 30}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder / "cached"))
    return folder / "cached"


@pytest.mark.parametrize("save", [_npy, _npz, _hdf5, _pt, _safetensors, _saev, _saelens])
def test_rows_of_other_programs(
    save: Save, tmp_path: Path, all_rows: Callable[[Path], np.ndarray]
) -> None:
    out = tmp_path / "out"
    layer = 7 if save is _saev else None
    convert(str(save(tmp_path)), str(out), layer=layer, dtype="float32")
    assert np.array_equal(all_rows(out), VALUES.reshape(-1, 6))
    shards = ShardSet(out)
    index = np.concatenate([shards.read_index(chunk) for chunk in range(len(shards.chunks))], 1)
    shards.close()
    assert np.array_equal(index[0], np.arange(30).repeat(4))
    assert np.array_equal(index[1], np.tile(np.arange(4), 30))


def test_what_saev_says_is_kept(tmp_path: Path) -> None:
    convert(str(_saev(tmp_path)), str(tmp_path / "out"), layer=7)
    manifest = Manifest.load(tmp_path / "out")
    assert (manifest.model, manifest.layer, manifest.tokens) == ("ViT-B-16", "7", "all")


def test_the_first_version_of_saev_is_read(
    tmp_path: Path, all_rows: Callable[[Path], np.ndarray]
) -> None:
    _saev(tmp_path)
    old = {"vit_ckpt": "ViT-B-16", "layers": [3, 7], "n_patches_per_img": 3, "cls_token": True,
           "d_vit": 6}  # fmt: skip
    (tmp_path / "metadata.json").write_text(json.dumps(old))
    listed = [{"name": f"acts{i:06d}.bin", "n_imgs": n} for i, n in ((0, 20), (1, 10))]
    (tmp_path / "shards.json").write_text(json.dumps(listed))
    convert(str(tmp_path), str(tmp_path / "out"), layer=3, dtype="float32")
    assert np.array_equal(all_rows(tmp_path / "out"), (VALUES + 100).reshape(-1, 6))


def test_a_vector_a_sample(tmp_path: Path, all_rows: Callable[[Path], np.ndarray]) -> None:
    np.save(tmp_path / "a.npy", VALUES[:, 0].astype(np.float64))
    convert(str(tmp_path / "a.npy"), str(tmp_path / "out"), dtype="float32")
    assert np.array_equal(all_rows(tmp_path / "out"), VALUES[:, 0])


def in_class_order(folder: Path, classes: int) -> Path:
    np.save(folder / "a.npy", np.zeros((164_000, 2), np.float16))
    np.save(folder / "labels.npy", np.arange(164_000) * classes // 164_000)
    convert(str(folder / "a.npy"), str(folder / "out"), labels=str(folder / "labels.npy"))
    return folder / "out"


@pytest.fixture(scope="module")
def sorted_by_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_class_order(tmp_path_factory.mktemp("sorted"), 10)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_set_in_the_order_of_its_classes_is_mixed_by_training(
    tmp_path: Path, classes: int
) -> None:
    shards = ShardSet(in_class_order(tmp_path, classes))
    assert len(shards.chunks) * 0.05 / 2 >= 1024
    for seed in range(3):
        assert 0.9 < label_chi_square(shards, buffer_rows=8200, batch_size=256, seed=seed) < 1.5
    shards.close()


@pytest.mark.parametrize("buffer_rows", [50_000, 400])
def test_mixing_is_told_when_the_set_is_opened(
    sorted_by_class: Path, buffer_rows: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        ActivationDataModule(str(sorted_by_class), buffer_rows=buffer_rows).setup()
    (told,) = [line for line in caplog.messages if "chi-square" in line]
    assert ("lightsae shards shuffle mixes them" in told) == (buffer_rows == 400)


def _pickled(folder: Path) -> Path:
    np.save(folder / "a.npy", np.array([{}], object), allow_pickle=True)
    return folder / "a.npy"


def _integers(folder: Path) -> Path:
    np.save(folder / "a.npy", np.zeros((3, 2), np.int64))
    return folder / "a.npy"


def _several(folder: Path) -> Path:
    np.savez(folder / "a.npz", acts=VALUES, other=VALUES)
    return folder / "a.npz"


def _flat(folder: Path) -> Path:
    np.save(folder / "a.npy", np.zeros(3, np.float32))
    return folder / "a.npy"


def _module(folder: Path) -> Path:
    torch.save(torch.nn.Linear(2, 2), folder / "a.pt")
    return folder / "a.pt"


def _cut(folder: Path) -> Path:
    _saev(folder, layers=[3])
    return folder


def _escaping(folder: Path) -> Path:
    _saev(folder, layers=[3])
    (folder / "shards.json").write_text('[{"name": "../acts000000.bin", "n_ex": 1}]')
    return folder


def _nothing(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(
    ("save", "says"),
    [
        (_pickled, "a.npy: cannot be read: .* Python objects in dtype"),
        (_integers, "a.npy: the array is int64, expected floats"),
        (_several, "several arrays, key says which .it has acts, other"),
        (_flat, r"a.npy: the array is \[3\], expected \[N, D\] or \[N, T, D\]"),
        (_module, "a.pt: cannot be read as tensors: "),
        (_saev, r"layer is None, it has the layers \[3, 7\]"),
        (_cut, r"acts000000.bin: is not \[20, 1, 4, 6\] float32"),
        (_escaping, "names '../acts000000.bin', expected a file of it"),
        (_nothing, "has no metadata.json of saev and no state.json of SAELens"),
        (lambda folder: folder / "none.npy", "source: there is no "),
        (lambda folder: folder, "has no metadata.json"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named(save: Save, says: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(LightsaeError, match=says):
        convert(str(save(tmp_path)), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.arange(3))
    with pytest.raises(LightsaeError, match=r"labels.npy is int64 \[3\], expected integers \[30\]"):
        convert(str(_npy(tmp_path)), str(tmp_path / "out"), labels=str(tmp_path / "labels.npy"))
