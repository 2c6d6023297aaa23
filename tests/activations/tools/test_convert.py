"""Activations of other programs become shards: every row, once, with its sample and label."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lightsae.activations import ActivationDataModule, Manifest, ShardSet
from lightsae.activations.extraction.image_sources.file_listing import stamps
from lightsae.activations.loading.label_mixing import label_chi_square
from lightsae.activations.tools.convert import convert
from lightsae.activations.tools.merge import merge
from lightsae.errors import LightsaeError

from .foreign_files import SAEV, VALUES, Save, npy, npz, saelens, saev, saev_by_its_writer


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


@pytest.mark.parametrize("save", [npy, npz, _hdf5, _pt, _old_pt, _safetensors, saev, saelens])
def test_rows_of_other_programs(
    save: Save, tmp_path: Path, all_rows: Callable[[Path], np.ndarray]
) -> None:
    out = tmp_path / "out"
    layer = 7 if save is saev else None
    convert(str(save(tmp_path)), str(out), layer=layer, dtype="float32")
    assert np.array_equal(all_rows(out), VALUES.reshape(-1, 6))
    shards = ShardSet(out)
    index = np.concatenate([shards.read_index(chunk) for chunk in range(len(shards.chunks))], 1)
    shards.close()
    assert np.array_equal(index[0], np.arange(30).repeat(4))
    assert np.array_equal(index[1], np.tile(np.arange(4), 30))


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


@pytest.mark.parametrize("changed", ["saev/acts000000.bin", "labels.npy"])
def test_other_files_than_it_was_begun_with_are_refused(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightsae.activations.tools.convert._PIECE_BYTES", 1)
    values = VALUES[:, None].copy()
    values[25] = np.nan
    (tmp_path / "saev").mkdir()
    saev_by_its_writer(tmp_path / "saev", values, 20, **SAEV)
    np.save(tmp_path / "labels.npy", np.arange(30))
    labels, out = str(tmp_path / "labels.npy"), str(tmp_path / "saev" / "out")
    with pytest.raises(LightsaeError, match="sample 25"):
        convert(str(tmp_path / "saev"), out, labels=labels, rows_per_shard=40)
    with pytest.raises(LightsaeError, match="sample 25"):
        convert(str(tmp_path / "saev"), out, labels=labels, rows_per_shard=40)
    os.utime(tmp_path / changed, (0, 0))
    with pytest.raises(LightsaeError, match=r"was begun with (label_)?data = 'names, sizes and ti"):
        convert(str(tmp_path / "saev"), out, labels=labels, rows_per_shard=40)


@pytest.mark.parametrize("save", [saev, saelens])
def test_hidden_files_are_no_part_of_a_source(save: Save, tmp_path: Path) -> None:
    source, options = save(tmp_path), {"layer": 7} if save is saev else {}
    convert(str(source), str(tmp_path / "out"), **options)  # type: ignore[arg-type]
    for name in (".DS_Store", "._state.json", "._0.arrow", "Thumbs.db"):
        (source / name).write_bytes(b"hidden")
    with pytest.raises(LightsaeError, match="out: is complete already"):
        convert(str(source), str(tmp_path / "out"), **options)  # type: ignore[arg-type]


def test_a_conversion_that_was_begun_when_hidden_files_counted_is_known(tmp_path: Path) -> None:
    source, out = saelens(tmp_path), tmp_path / "out"
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
    saev(tmp_path / "saev")
    with pytest.raises(LightsaeError, match=f"^out is '{out}', expected another folder than saev"):
        convert("saev", out, layer=7)
