import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lightsae.activations import ActivationDataModule, Manifest, ShardSet
from lightsae.activations.extraction.image_sources.file_listing import stamps
from lightsae.activations.loading.label_mixing import label_chi_square
from lightsae.activations.tools.convert import convert
from lightsae.activations.tools.foreign_activations import Foreign
from lightsae.activations.tools.merge import merge
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


def _old_pt(folder: Path) -> Path:
    tensors = {"acts": torch.from_numpy(VALUES)}
    torch.save(tensors, folder / "a.pt", _use_new_zipfile_serialization=False)
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


@pytest.mark.parametrize("save", [_npy, _npz, _hdf5, _pt, _old_pt, _safetensors, _saev, _saelens])
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


def _saev_by_its_writer(folder: Path, values: np.ndarray, room: int, **about: Any) -> None:
    """Files of full shape, the last one filled in part: all that saev 0.1.0 writes."""
    (folder / "metadata.json").write_text(json.dumps(about))
    for number, start in enumerate(range(0, len(values) + 1, room)):
        part = values[start : start + room]
        whole = np.zeros((room, *values.shape[1:]), np.float32)
        whole[: len(part)] = part
        whole.tofile(folder / f"acts{number:06d}.bin")


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
    _saev_by_its_writer(tmp_path, values, room, **about)
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
    _saev_by_its_writer(tmp_path, VALUES[:, None], 20, **about)
    if listed:
        files = [{"name": f"acts{i:06d}.bin", "n_examples": n} for i, n in ((0, 20), (1, 10))]
        (tmp_path / "shards.json").write_text(json.dumps(files))
    convert(str(tmp_path), str(tmp_path / "out"), dtype="float32")
    assert np.array_equal(all_rows(tmp_path / "out"), VALUES.reshape(-1, 6))


_SAEV = {"layers": [3], "n_patches_per_img": 3, "cls_token": True, "d_vit": 6, "n_imgs": 30,
         "n_patches_per_shard": 80}  # fmt: skip


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ([], "metadata.json: holds list, expected an object"),
        ({**_SAEV, "layers": ["3"]}, r"metadata.json: layers is \['3'\], expected whole numbers"),
        ({**_SAEV, "d_vit": "6"}, "metadata.json: d_vit is '6', expected a whole number"),
        ({**_SAEV, "d_vit": 0}, "metadata.json: d_vit is 0, expected 1 or more"),
        ({**_SAEV, "dtype": "float16"}, "metadata.json: dtype is 'float16', expected 'float32'"),
        ({**_SAEV, "cls_token": 1}, "metadata.json: cls_token is 1, expected true or false"),
        ({**_SAEV, "n_patches_per_shard": 3}, "n_patches_per_shard is 3, expected 4 or more"),
        ({**_SAEV, "n_imgs": 50}, "acts000002.bin: is missing"),
        ({**_SAEV, "d_vit": 5}, r"acts000000.bin: is not \[20, 1, 4, 5\] float32, it has 1920 b"),
        *(
            ({name: _SAEV[name] for name in _SAEV if name != left_out}, f"has no .*{left_out}")
            for left_out in _SAEV
        ),
    ],
)
def test_what_a_folder_of_saev_lacks_is_named(about: Any, says: str, tmp_path: Path) -> None:
    _saev_by_its_writer(tmp_path, VALUES[:10, None], 20)
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
    _saev(tmp_path)
    (tmp_path / "shards.json").write_text(listed)
    with pytest.raises(LightsaeError, match=says):
        convert(str(tmp_path), str(tmp_path / "out"), layer=3)
    assert not (tmp_path / "out").exists()


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
    (folder / "acts000000.bin").write_bytes(bytes(4 * 19 * 4 * 6))
    return folder


def _escaping(folder: Path) -> Path:
    _saev(folder, layers=[3])
    (folder / "shards.json").write_text('[{"name": "../acts000000.bin", "n_ex": 1}]')
    return folder


def _empty(folder: Path) -> Path:
    np.savez(folder / "a.npz")
    return folder / "a.npz"


def _no_tensor(folder: Path) -> Path:
    torch.save({"step": 3}, folder / "a.pt")
    return folder / "a.pt"


def _tensor(tensor: torch.Tensor) -> Save:
    def save(folder: Path) -> Path:
        torch.save(tensor, folder / "a.pt")
        return folder / "a.pt"

    return save


def _nested() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a prototype
        return torch.nested.nested_tensor([torch.zeros(3, 4), torch.zeros(2, 4)])


def _dataset(rows: dict[str, list[Any]], feature: str, files: int | None = None) -> Save:
    def save(folder: Path) -> Path:
        datasets = pytest.importorskip("datasets")
        kinds = {"array": datasets.Array2D((None, 6), "float32"), "text": datasets.Value("string")}
        features = datasets.Features({"blocks.3.hook": kinds[feature]})
        found = datasets.Dataset.from_dict(rows, features=features)
        found.save_to_disk(str(folder / "cached"), num_shards=files)
        return folder / "cached"

    return save


_UNEQUAL = [np.zeros((4, 6)), np.zeros((4, 6)), np.zeros((2, 6))]


def _nothing(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(
    ("save", "says"),
    [
        (_pickled, "a.npy: cannot be read: .* Python objects in dtype"),
        (_integers, "a.npy: the array is int64, expected floats"),
        (_several, "several arrays, key says which .it has acts, other"),
        (_flat, r"a.npy: the array is \[3\], expected \[N, D\] or \[N, T, D\]"),
        (_module, "a.pt: cannot be read as tensors: it holds objects: torch.nn"),
        (_saev, r"layer is None, it has the layers \[3, 7\]"),
        (_cut, r"acts000000.bin: is not \[20, 1, 4, 6\] float32, it has 1824 bytes"),
        (_escaping, "names '../acts000000.bin', expected a file of it"),
        (_nothing, "has no metadata.json of saev and no state.json of SAELens"),
        (lambda folder: folder / "none.npy", "source: there is no "),
        (lambda folder: folder, "has no metadata.json"),
        (_empty, "a.npz: has no array$"),
        (_no_tensor, "a.pt: has no array$"),
        (_tensor(torch.zeros(3, 4).to_sparse()), "a.pt: the tensor is sparse, expected a dense"),
        (_tensor(torch.zeros(3, 4, device="meta")), "a.pt: the tensor is meta, expected a dense"),
        (_tensor(_nested()), "a.pt: the tensor is nested, expected a dense"),
        (_dataset({"blocks.3.hook": []}, "array"), "cached: has no rows"),
        (_dataset({"blocks.3.hook": []}, "array", files=1), "cached: has no rows"),
        (_dataset({"blocks.3.hook": ["a"]}, "text"), r"cached: blocks.3.hook is \[1\], expected"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")
def test_what_is_not_understood_is_named(save: Save, says: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(LightsaeError, match=says):
        convert(str(save(tmp_path)), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.arange(3))
    with pytest.raises(LightsaeError, match=r"labels.npy is int64 \[3\], expected integers \[30\]"):
        convert(str(_npy(tmp_path)), str(tmp_path / "out"), labels=str(tmp_path / "labels.npy"))


def test_rows_of_unequal_length_are_named(tmp_path: Path) -> None:
    source = _dataset({"blocks.3.hook": _UNEQUAL}, "array")(tmp_path)
    with pytest.raises(
        LightsaeError, match=r"cached: row 2 of .* is \[2, 6\], expected \[4, 6\] a"
    ):
        convert(str(source), str(tmp_path / "out"))


def test_what_fails_in_the_middle_of_reading_names_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(part: slice) -> torch.Tensor:
        raise RuntimeError("a block\nis damaged")

    found = Foreign((30, 4, 6), read)
    monkeypatch.setattr("lightsae.activations.tools.convert.open_foreign", lambda *given: found)
    with pytest.raises(LightsaeError, match=r"a.npy: cannot be read: RuntimeError: a block; is da"):
        convert(str(_npy(tmp_path)), str(tmp_path / "out"))


@pytest.mark.parametrize(("bad", "says"), [(np.nan, "nan, expected a f"), (7e4, "70000, too lar")])
def test_a_value_that_cannot_be_stored_names_source_and_row(
    bad: float, says: str, tmp_path: Path
) -> None:
    values = VALUES.copy()
    values[17, 3, 2] = bad
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(LightsaeError, match=rf"a.npy: sample 17, token 3, .* \[2\] is {says}"):
        convert(str(tmp_path / "a.npy"), str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("save", "given", "says"),
    [
        (_npy, {"layer": 3}, "a.npy: layer is 3, but only a folder of saev has layers"),
        (_saelens, {"layer": 3}, "cached: layer is 3, but only a folder of saev has layers"),
        (_npy, {"key": "acts"}, "a.npy: key is 'acts', but it has no names"),
        (_tensor(torch.zeros(3, 4)), {"key": "acts"}, "a.pt: key is 'acts', but it has no names"),
        (_saev, {"layer": 7, "key": "acts"}, ": key is 'acts', but it has no names"),
        (_npz, {"key": "act"}, "a.npz: no array 'act'; closest: 'acts' .it has acts"),
        (_several, {"key": ""}, "a.npz: no array '' .it has acts, other"),
    ],
)
def test_a_key_or_layer_that_is_not_there_is_refused(
    save: Save, given: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(LightsaeError, match=says):
        convert(str(save(tmp_path)), str(tmp_path / "out"), **given)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    """Datasets in groups, and everything that leads out of the file."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["acts"] = VALUES
    VALUES.tofile(tmp_path / "acts.bin")
    layout = h5py.VirtualLayout(VALUES.shape, np.float32)
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "acts", VALUES.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/acts"], file["g/h/acts"] = VALUES, VALUES + 100
        file["linked"] = h5py.ExternalLink("other.h5", "acts")
        file["soft"] = h5py.SoftLink("/linked")
        file.create_virtual_dataset("virtual", layout)
        outside = [(tmp_path / "acts.bin", 0, VALUES.nbytes)]
        file.create_dataset("outside", VALUES.shape, np.float32, external=outside)
    return tmp_path / "a.h5"


def test_a_dataset_in_a_group_is_named_by_its_path(
    grouped: Path, all_rows: Callable[[Path], np.ndarray]
) -> None:
    out = grouped.parent / "out"
    convert(str(grouped), str(out), key="g/h/acts", dtype="float32")
    assert np.array_equal(all_rows(out), (VALUES + 100).reshape(-1, 6))


@pytest.mark.parametrize("key", ["linked", "soft", "virtual", "outside", "g", "/g/acts"])
def test_nothing_leads_out_of_an_hdf5_file(grouped: Path, key: str) -> None:
    with pytest.raises(LightsaeError, match=rf"no array '{key}'.* .it has g/acts, g/h/acts.$"):
        convert(str(grouped), str(grouped.parent / "out"), key=key)


def test_labels_that_are_no_array_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", labels=np.arange(30))
    with pytest.raises(
        LightsaeError, match=r"labels.npz cannot be read as .npy: ValueError: the m"
    ):
        convert(str(_npy(tmp_path)), str(tmp_path / "out"), labels=str(tmp_path / "labels.npz"))


def test_labels_too_large_for_int64_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.full(30, 2**63, np.uint64))
    with pytest.raises(LightsaeError, match="holds 9223372036854775808, expected numbers below 2"):
        convert(str(_npy(tmp_path)), str(tmp_path / "out"), labels=str(tmp_path / "labels.npy"))


@pytest.mark.parametrize("changed", ["saev/acts000000.bin", "labels.npy"])
def test_other_files_than_it_was_begun_with_are_refused(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightsae.activations.tools.convert._PIECE_BYTES", 1)
    values = VALUES[:, None].copy()
    values[25] = np.nan
    (tmp_path / "saev").mkdir()
    _saev_by_its_writer(tmp_path / "saev", values, 20, **_SAEV)
    np.save(tmp_path / "labels.npy", np.arange(30))
    labels, out = str(tmp_path / "labels.npy"), str(tmp_path / "saev" / "out")
    with pytest.raises(LightsaeError, match="sample 25"):
        convert(str(tmp_path / "saev"), out, labels=labels, rows_per_shard=40)
    with pytest.raises(LightsaeError, match="sample 25"):
        convert(str(tmp_path / "saev"), out, labels=labels, rows_per_shard=40)
    os.utime(tmp_path / changed, (0, 0))
    with pytest.raises(LightsaeError, match=r"was begun with (label_)?data = 'names, sizes and ti"):
        convert(str(tmp_path / "saev"), out, labels=labels, rows_per_shard=40)


@pytest.mark.parametrize("save", [_saev, _saelens])
def test_hidden_files_are_no_part_of_a_source(save: Save, tmp_path: Path) -> None:
    source, options = save(tmp_path), {"layer": 7} if save is _saev else {}
    convert(str(source), str(tmp_path / "out"), **options)  # type: ignore[arg-type]
    for name in (".DS_Store", "._state.json", "._0.arrow", "Thumbs.db"):
        (source / name).write_bytes(b"hidden")
    with pytest.raises(LightsaeError, match="out: is complete already"):
        convert(str(source), str(tmp_path / "out"), **options)  # type: ignore[arg-type]


def test_a_conversion_that_was_begun_when_hidden_files_counted_is_known(tmp_path: Path) -> None:
    source, out = _saelens(tmp_path), tmp_path / "out"
    (source / ".DS_Store").write_bytes(b"hidden")
    convert(str(source), str(out))
    manifest = Manifest.load(out)
    manifest.settings["data"] = stamps(Path(), sorted(filter(Path.is_file, source.iterdir())))
    manifest.save(out)
    with pytest.raises(LightsaeError, match="out: is complete already"):
        convert(str(source), str(out))


@pytest.mark.parametrize(("first", "second"), [("a.npy", "b.npy"), ("a/x.npy", "b/x.npy")])
def test_files_of_the_same_size_and_time_are_not_the_same_images(
    first: str, second: str, tmp_path: Path
) -> None:
    outs = []
    for name in (first, second):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, VALUES)
        os.utime(tmp_path / name, (0, 0))
        outs.append(str(tmp_path / f"out-{len(outs)}"))
        convert(str(tmp_path / name), outs[-1])
    merge(outs, str(tmp_path / "merged"))
    shards = ShardSet(tmp_path / "merged")
    samples = [shards.read_index(chunk)[0] for chunk in range(len(shards.chunks))]
    shards.close()
    assert len(np.unique(np.concatenate(samples))) == 60


@pytest.mark.parametrize("out", ["", "saev"])
def test_shards_are_not_written_into_the_source(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saev").mkdir()
    _saev(tmp_path / "saev")
    with pytest.raises(LightsaeError, match=f"^out is '{out}', expected another folder than saev"):
        convert("saev", out, layer=7)
