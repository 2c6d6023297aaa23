import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightsae.activations import (
    ActivationDataModule,
    DataOptions,
    Extraction,
    LayerTap,
    Manifest,
    ModelOptions,
    ShardSet,
    extract,
)
from lightsae.activations.extraction.images.image_set import DatasetImages
from lightsae.activations.extraction.layer_folder import LayerFolder
from lightsae.activations.loading.label_mixing import in_random_order
from lightsae.activations.shards.writer import ShardWriter
from lightsae.errors import LightsaeError
from tests.activations.stand_ins import Noise, TinyNet
from tests.activations.tiffs import damaged_tiff

STAND_INS = "tests.activations.stand_ins"


def _extract(out: Path, count: int = 40, bad: tuple[int, ...] = (), **options: Any) -> Manifest:
    noise = {"count": count, "bad": bad, "copies": options.pop("copies", 1)}
    noise["large"] = options.pop("large", ())
    model = {"scale": options.pop("scale", 1.0)}
    options = {"layer": "tokens", "tokens": "patch", "dtype": "float32", **options}
    options = {"batch_size": 6, "rows_per_shard": 50, **options}
    (manifest,) = extract(
        ModelOptions(module=f"{STAND_INS}.TinyNet", arguments=model),
        DataOptions(dataset=f"{STAND_INS}.Noise", arguments=noise),
        out=str(out),
        **options,
    )
    return manifest


def contents(folder: Path) -> dict[str, Any]:
    """Every dataset of every shard, and the manifest."""
    found: dict[str, Any] = {"manifest": json.loads((folder / "manifest.json").read_text())}
    for path in sorted(folder.glob("shard-*")):
        with h5py.File(path) as file:
            found |= {f"{path.name}/{name}": file[name][()].tobytes() for name in file}
    return found


def _rows(folder: Path) -> dict[tuple[int, int], np.ndarray]:
    shards = ShardSet(folder)
    chunks = range(len(shards.chunks))
    index = np.concatenate([shards.read_index(chunk) for chunk in chunks], axis=1)
    rows = np.concatenate(shards.read_activations(chunks))
    shards.close()
    assert index.shape[1] == len({(s, t) for s, t in index[:2].T.tolist()})
    return {(int(s), int(t)): row for s, t, row in zip(*index[:2], rows, strict=True)}


def _model() -> TinyNet:
    from lightsae.activations.extraction.models import load_model

    model = load_model(ModelOptions(module=f"{STAND_INS}.TinyNet"))
    assert isinstance(model, TinyNet)
    return model


@pytest.mark.parametrize(
    ("tokens", "layer", "positions"),
    [
        ("class", "tokens", [0]),
        ("patch", "tokens", [1, 2, 3, 4]),
        ("all", "tokens", [0, 1, 2, 3, 4]),
        ("pooled", "tokens", [0]),
        ("patch", "patches", [0, 1, 2, 3]),
        ("class", "head", [0]),
    ],
)
def test_rows_are_the_layers_tokens(
    tmp_path: Path, tokens: Any, layer: str, positions: list[int]
) -> None:
    manifest = _extract(tmp_path, 13, tokens=tokens, layer=layer)
    assert manifest.rows == 13 * len(positions)
    assert (manifest.layer, manifest.tokens, manifest.has_labels) == (layer, tokens, True)
    rows = _rows(tmp_path)
    tap = LayerTap(_model(), layer)
    for sample in (0, 7, 12):
        output = tap(Noise()[sample][0][None])
        if tokens == "pooled":
            output = output[:, 1:].mean(1, keepdim=True)
        if output.ndim == 4:
            output = output.flatten(2).transpose(1, 2)
        output = output.view(-1, output.shape[-1])
        for position in positions:
            expected = output[min(position, len(output) - 1)].numpy()
            np.testing.assert_allclose(rows[sample, position], expected, rtol=1e-5, atol=1e-6)


def test_labels_follow_their_samples(tmp_path: Path) -> None:
    manifest = _extract(tmp_path)
    assert manifest.classes == ["a", "b", "c", "d"]
    shards = ShardSet(tmp_path)
    for chunk in range(len(shards.chunks)):
        sample, _, label = shards.read_index(chunk)
        assert (label == sample % 4).all()
    shards.close()


def test_shards_hold_whole_forward_passes(tmp_path: Path) -> None:
    assert [entry.rows for entry in _extract(tmp_path).shards] == [72, 72, 16]


def test_a_random_order_mixes_the_labels_of_stored_batches(tmp_path: Path) -> None:
    _extract(tmp_path, 1200, tokens="class", batch_size=300)
    shards = ShardSet(tmp_path)
    labels = np.concatenate([shards.read_index(i)[2] for i in range(len(shards.chunks))])
    shards.close()
    counts = np.stack([np.bincount(part, minlength=4) for part in np.split(labels, 12)])
    statistic = ((counts - 25) ** 2 / 25).sum()
    assert statistic / (11 * 3) < 1.6


def test_an_extraction_is_known_to_be_in_a_random_order(tmp_path: Path) -> None:
    assert in_random_order(_extract(tmp_path))


def test_copies_of_a_sample_stay_in_its_split(tmp_path: Path) -> None:
    _extract(tmp_path, 40, copies=4)
    rows = _rows(tmp_path)
    assert {sample for sample, _ in rows} == set(range(10))
    assert sorted(t for s, t in rows if s == 3) == [
        c * 5 + t for c in range(4) for t in (1, 2, 3, 4)
    ]
    data = ActivationDataModule(str(tmp_path), val_fraction=0.2, test_fraction=0.2, batch_size=7)
    seen = [
        {int(i) for batch in loader for i in batch.sample_index}
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ]
    data.teardown()
    assert [len(samples) for samples in seen] == [6, 2, 2]
    assert len(set.union(*seen)) == 10


@pytest.mark.parametrize("fails_after", range(0, 7))
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_after: int
) -> None:
    _extract(tmp_path / "whole", bad=(3, 11), on_error="skip")
    real, calls = ShardWriter.write, 0

    def write(self: ShardWriter, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > fails_after:
            raise KeyboardInterrupt
        real(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShardWriter, "write", write)
        _extract(tmp_path / "cut", bad=(3, 11), on_error="skip")
    _extract(tmp_path / "cut", bad=(3, 11), on_error="skip")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_complete_folder_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _extract(tmp_path)
    before = (tmp_path / "manifest.json").stat().st_mtime_ns
    assert _extract(tmp_path) == first
    assert "already complete, 160 rows" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layer": "patches"}, "layer = 'tokens', this command has 'patches'"),
        ({"tokens": "all"}, "tokens"),
        ({"dtype": "float16"}, "dtype"),
        ({"seed": 1}, "seed = 0, this command has 1"),
        ({"batch_size": 7}, "batch_size"),
        ({"count": 41}, "its images changed since .* was begun with them .*40.*, now .*41"),
        ({"rows_per_shard": 9}, "rows_per_shard"),
    ],
)
def test_a_folder_of_another_command_is_refused(tmp_path: Path, options: Any, named: str) -> None:
    _extract(tmp_path)
    with pytest.raises(LightsaeError, match=named):
        _extract(tmp_path, **options)


def test_an_unreadable_image_ends_the_run_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(
        LightsaeError, match=r"item 11 of .*Noise.* is unreadable: OSError: broken file \(on"
    ):
        _extract(tmp_path, bad=(11,))


def test_unreadable_images_are_skipped_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LightsaeError, match="item 11"):
        _extract(tmp_path, bad=(11, 30))
    manifest = _extract(tmp_path, bad=(11, 30), on_error="skip")
    assert manifest.rows == 38 * 4
    assert len(manifest.progress["skipped"]) == 2
    assert "2 images skipped" in " ".join(capsys.readouterr().err.split())
    assert not {11, 30} & {sample for sample, _ in _rows(tmp_path)}


def test_of_one_thing_the_singular_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _extract(tmp_path, bad=(11,), on_error="skip")
    assert "1 image skipped" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_warnings_of_images_are_a_line_each_for_the_first_and_a_count(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(8):
        (tmp_path / "in" / f"{number}.tif").write_bytes(damaged_tiff(odd_tag=number > 0))
    _extract_folder(tmp_path / "in", tmp_path / "out", workers=workers)
    lines = capfd.readouterr().err.splitlines()
    told = [line for line in lines if " read with " in line]
    assert len(told) == 6
    for line in told[:-1]:
        assert re.match(rf"{tmp_path}/in/\d.tif: was read with \d warnings, the first: Tag", line)
    assert told[-1] == "7 images were read with warnings, of which the first 5 are told"
    assert not [line for line in lines if "TiffImagePlugin" in line]


def test_only_unreadable_images_are_an_error(tmp_path: Path) -> None:
    extraction = Extraction(
        tap=LayerTap(_model(), "tokens"),
        images=_AllBad(Noise(5), None, "noise"),
        out=tmp_path,
        model_name="tiny",
        on_error="skip",
    )
    with pytest.raises(LightsaeError, match="none of the 5 images gives rows: bad"):
        extraction.run()


class _AllBad(DatasetImages):
    def load(self, position: int) -> Any:
        return super().load(position)._replace(image=None, problem="bad")


def test_float16_overflow_names_the_sample(tmp_path: Path) -> None:
    with pytest.raises(
        LightsaeError, match=r"sample .*, token .*, layer 'tokens': .* use dtype fl"
    ):
        _extract(tmp_path, dtype="float16", scale=1e6)
    assert _extract(tmp_path, dtype="bfloat16", scale=1e6).rows == 160


def test_an_image_that_overflows_is_named_with_what_to_do(tmp_path: Path) -> None:
    says = (
        r"^item 11 of .*Noise.*: sample 11, token [1-4], layer 'tokens': activation \[\d\] is .*, "
        r"too large for float16: use dtype float32 or bfloat16 \(on_error skip goes on without "
        r"it\)$"
    )
    with pytest.raises(LightsaeError, match=says):
        _extract(tmp_path, dtype="float16", large=(11,))


def test_images_that_overflow_are_skipped_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"dtype": "float16", "on_error": "skip", "bad": (3,)}
    manifest = _extract(tmp_path / "out", large=(11, 30), **options)
    rows = _rows(tmp_path / "out")
    assert {sample for sample, _ in rows} == set(range(40)) - {3, 11, 30}
    assert manifest.rows == len(rows) == 37 * 4
    skipped = sorted(manifest.progress["skipped"])
    assert [line.split(" of ")[0] for line in skipped] == ["item 11", "item 3", "item 30"]
    for number in (0, 2):
        assert skipped[number].endswith("too large for float16: use dtype float32 or bfloat16")
        assert f"skipped: {skipped[number]}" in capsys.readouterr().err or number
    whole = _extract(tmp_path / "whole", **options)
    assert whole.rows == 39 * 4
    for place, row in _rows(tmp_path / "whole").items():
        if place in rows:
            np.testing.assert_array_equal(row, rows[place])


@pytest.mark.parametrize("fails_after", [0, 2, 4])
def test_an_interrupted_run_skips_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_after: int
) -> None:
    options: dict[str, Any] = {"dtype": "float16", "on_error": "skip", "large": (3, 11, 30)}
    _extract(tmp_path / "whole", **options)
    _cut(tmp_path / "cut", monkeypatch, fails_after, **options)
    _extract(tmp_path / "cut", **options)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_images_that_all_overflow_are_an_error(tmp_path: Path) -> None:
    says = r"^data: none of the 5 images gives rows: item . of .* too large for float16"
    with pytest.raises(LightsaeError, match=says):
        _extract(tmp_path, 5, dtype="float16", on_error="skip", large=tuple(range(5)))


def test_an_image_that_overflows_is_named_by_its_file(tmp_path: Path, pictures: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(LightsaeError, match=rf"^{pictures}/[ab]/\d+.png: sample \d+, token"):
        _extract_folder(pictures, out, std=[1e-6] * 3, dtype="float16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "^batch_size is 0, expected at least 1"),
        ({"rows_per_shard": 0}, "^rows_per_shard is 0, expected at least 1"),
        ({"workers": -1}, "^workers is -1, expected at least 0"),
        ({"seed": -1}, "^seed is -1, expected at least 0"),
        ({"device": "nowhere"}, "device 'nowhere' cannot be used"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"tokens": "cls"}, "tokens is 'cls'"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        _extract(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def _save(path: Path, seed: int) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _extract_folder(folder: Path, out: Path, **options: Any) -> Manifest:
    own: dict[str, Any] = {"size": 16, "mean": [0.5] * 3, "std": options.pop("std", [0.25] * 3)}
    return extract(
        ModelOptions(module=f"{STAND_INS}.TinyNet"),
        DataOptions(folder=str(folder), **own),
        layer="tokens",
        out=str(out),
        **{"batch_size": 4, "rows_per_shard": 5, **options},
    )[0]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(14):
        _save(tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png", number)
    return tmp_path / "pictures"


@pytest.mark.parametrize("finished", [True, False], ids=["complete", "interrupted"])
def test_a_folder_of_images_that_changed_is_refused(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    out = tmp_path / "out"
    if finished:
        _extract_folder(pictures, out)
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ShardWriter, "finish", _interrupt)
            _extract_folder(pictures, out)
        assert Manifest.load(out).shards
    before = contents(out)
    _save(pictures / "a" / "0.png", seed=99)
    message = f"^{pictures}: its images changed since {out} was begun with them "
    with pytest.raises(LightsaeError, match=message) as caught:
        _extract_folder(pictures, out)
    assert "\n" not in str(caught.value)
    assert contents(out) == before


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_folder_of_images_may_move(tmp_path: Path, pictures: Path) -> None:
    first = _extract_folder(pictures, tmp_path / "out")
    moved = pictures.rename(tmp_path / "moved")
    assert _extract_folder(moved, tmp_path / "out") == first


@pytest.mark.parametrize("finished", [True, False], ids=["complete", "interrupted"])
@pytest.mark.parametrize("labelled", [True, False], ids=["classes", "flat"])
def test_a_folder_that_was_begun_when_fewer_files_were_read_goes_on_with_those(
    tmp_path: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished: bool,
    labelled: bool,
) -> None:
    if not labelled:
        for path in pictures.glob("*/*"):
            path.rename(pictures / path.name)
        for name in "ab":
            (pictures / name).rmdir()
    out = tmp_path / "out"
    whole = _extract_folder(pictures, tmp_path / "whole")
    if finished:
        _extract_folder(pictures, out)
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ShardWriter, "finish", _interrupt)
            _extract_folder(pictures, out)
    folder = pictures / "a" if labelled else pictures
    for name in ("x.jfif", "y.jpe"):
        _save(folder / name, seed=3)
    if labelled:
        _save(pictures / "aa" / "x.tga", seed=4)
    assert _extract_folder(pictures, out) == whole
    assert contents(out) == contents(tmp_path / "whole")
    count = 3 if labelled else 2
    said = f"{pictures}: goes on with the 14 images and the classes that it was begun with; an ext"
    assert said in capsys.readouterr().err
    more = _extract_folder(pictures, tmp_path / "more")
    assert more.settings["images"] == 14 + count
    assert more.settings["data"] != whole.settings["data"]


def test_a_folder_goes_on_that_is_now_mixed_because_more_files_are_read(
    tmp_path: Path, pictures: Path
) -> None:
    whole = _extract_folder(pictures, tmp_path / "out")
    _save(pictures / "stray.jfif", seed=1)
    assert _extract_folder(pictures, tmp_path / "out") == whole
    with pytest.raises(LightsaeError, match=r"stray.jfif is in no subfolder"):
        _extract_folder(pictures, tmp_path / "more")


def test_a_class_without_images_changes_no_labels_of_a_folder_that_was_begun(
    tmp_path: Path, pictures: Path
) -> None:
    whole = _extract_folder(pictures, tmp_path / "out")
    (pictures / "aa").mkdir()
    assert _extract_folder(pictures, tmp_path / "out") == whole
    assert _extract_folder(pictures, tmp_path / "more").classes == ["a", "aa", "b"]


def test_a_dataset_that_grew_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _extract(tmp_path)
    monkeypatch.setattr(Noise, "__len__", lambda self: 41)
    with pytest.raises(LightsaeError, match="was begun with images = 40, this command has 41"):
        _extract(tmp_path)


@pytest.mark.slow
def test_workers_make_the_same_shards_of_a_folder(tmp_path: Path, pictures: Path) -> None:
    (pictures / "b" / "1.png").write_bytes(b"broken")
    for workers in (0, 2):
        _extract_folder(pictures, tmp_path / str(workers), workers=workers, on_error="skip")
    assert Manifest.load(tmp_path / "0").rows == 13
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


@pytest.mark.slow
def test_workers_make_the_same_shards_of_a_dataset(tmp_path: Path) -> None:
    for workers in (0, 2):
        _extract(tmp_path / str(workers), workers=workers, copies=4)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system lists no open files")
def test_workers_do_not_hold_the_lock_of_a_folder_that_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShardWriter, "finish", _interrupt)
        _extract(tmp_path)
    real = Noise.__getitem__

    def look(self: Noise, i: int) -> Any:
        if i > 0 and any(os.path.realpath(file) == str(tmp_path) for file in _open_files()):
            raise OSError("a worker has the folder open")
        return real(self, i)

    monkeypatch.setattr(Noise, "__getitem__", look)
    assert _extract(tmp_path, workers=2).complete


def _open_files() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir())


@pytest.mark.slow
def test_an_unreadable_image_in_a_worker_ends_the_run_with_its_name(
    tmp_path: Path, pictures: Path
) -> None:
    broken = pictures / "b" / "1.png"
    broken.write_bytes(b"broken")
    with pytest.raises(LightsaeError, match=f"^{broken} is not a readable image: ") as caught:
        _extract_folder(pictures, tmp_path / "out", workers=2)
    assert not multiprocessing.active_children()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("out", ["file", "file/below", "file/far/below"])
def test_a_folder_that_cannot_be_made_is_refused_first(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("mine")
    message = f"^{tmp_path / out}: {tmp_path}/file is a file, expected a folder$"
    with pytest.raises(LightsaeError, match=message):
        _extract(tmp_path / out, layer="no such layer")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_may_not_be_written_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    message = f"^{tmp_path}/new/out: no permission to write in {tmp_path}$"
    with pytest.raises(LightsaeError, match=message):
        _extract(tmp_path / "new" / "out", layer="no such layer")


def test_a_name_that_the_system_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=r"x: cannot be written: File name too long$"):
        _extract(tmp_path / ("x" * 300))


def test_a_complete_folder_need_not_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _extract(tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert _extract(tmp_path) == first


def test_an_out_of_nothing_is_refused() -> None:
    with pytest.raises(LightsaeError, match=r"^out is '', expected a folder"):
        extract(ModelOptions(), DataOptions(), layer="tokens", out="")


def test_prefix_tokens_count_where_the_model_does_not_say_them(tmp_path: Path) -> None:
    def run_with(prefix: int) -> Manifest:
        return extract(
            ModelOptions(module=f"{STAND_INS}.TinyNet", prefix_tokens=prefix),
            DataOptions(dataset=f"{STAND_INS}.Noise", arguments={"count": 6}),
            layer="tokens", tokens="patch", out=str(tmp_path),
        )[0]  # fmt: skip

    assert run_with(2).rows == 6 * 3
    assert {token for _, token in _rows(tmp_path)} == {2, 3, 4}
    with pytest.raises(LightsaeError, match="prefix_tokens = 2, this command has 1"):
        run_with(1)


def test_half_precision_changes_little(tmp_path: Path) -> None:
    _extract(tmp_path / "a", 8)
    _extract(tmp_path / "b", 8, compute="bfloat16")
    first, second = _rows(tmp_path / "a"), _rows(tmp_path / "b")
    assert first.keys() == second.keys()
    assert max(np.abs(first[key] - second[key]).max() for key in first) < 0.02


_SLOW = """
import sys, time, torch
torch.set_num_threads(1)
from pathlib import Path
from tests.activations import stand_ins
from tests.activations.extraction.test_extract import _extract

real = stand_ins.Noise.__getitem__

def slow(self, i):
    time.sleep(0.02)
    return real(self, i)

stand_ins.Noise.__getitem__ = slow
_extract(Path(sys.argv[1]), 120, rows_per_shard=25)
"""


@pytest.mark.slow
def test_kill_9_and_the_same_command_again(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    _extract(whole, 120, rows_per_shard=25)
    child = subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(cut)],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", "kernels"])},
    )
    while child.poll() is None and len(list(cut.glob("shard-?????.h5"))) < 2:
        time.sleep(0.01)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    _extract(cut, 120, rows_per_shard=25)
    assert contents(cut) == contents(whole)


def _cut(out: Path, monkeypatch: pytest.MonkeyPatch, calls: int, **options: Any) -> None:
    """Begin an extraction or go on with it, and stop before one more call."""
    real, left = ShardWriter.write, calls

    def write(self: ShardWriter, *args: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        real(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShardWriter, "write", write)
        _extract(out, **options)


@pytest.mark.parametrize("begun", [False, True], ids=["new", "begun"])
def test_what_another_writer_left_meanwhile_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    _extract(tmp_path / "whole")
    if begun:
        _cut(tmp_path / "out", monkeypatch, 3)
    real = LayerFolder._new_writer

    def late(self: LayerFolder) -> ShardWriter:
        monkeypatch.setattr(LayerFolder, "_new_writer", real)
        _cut(tmp_path / "out", monkeypatch, 3)
        return real(self)

    monkeypatch.setattr(LayerFolder, "_new_writer", late)
    with pytest.raises(LightsaeError, match="another process wrote to it while this one began"):
        _extract(tmp_path / "out")
    _extract(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_names_are_told_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pictures: Path
) -> None:
    name = "[bold]" + "x" * 100 + "[/red].png"
    (pictures / "a" / name).parent.mkdir()
    (pictures / "a" / name).write_bytes(b"no image")
    (pictures / "a" / "two\nlines.png").write_bytes(b"no image")
    _extract_folder(pictures, tmp_path / "out[/b]", on_error="skip")
    lines = capsys.readouterr().err.splitlines()
    assert any("two\\nlines.png is not a readable image" in line for line in lines)
    assert any(name in line and line.startswith("skipped: ") for line in lines)
    assert any(line.startswith(f"{tmp_path}/out[/b]: 14 rows") for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"tokens_per_image": 0}, "tokens_per_image is 0, expected at least 1"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"data": DataOptions()}, "data: give one of"),
        ({"data": DataOptions(folder="nowhere")}, "data.folder: there is no folder nowhere"),
    ],
)
def test_what_is_cheap_to_check_is_checked_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any, message: str
) -> None:
    monkeypatch.setattr("lightsae.activations.extraction.models.load_model", None)
    options = {"data": DataOptions(dataset=f"{STAND_INS}.Noise"), **options}
    with pytest.raises(LightsaeError, match=message):
        extract(ModelOptions(name="vit"), layer="norm", out=str(tmp_path / "out"), **options)
