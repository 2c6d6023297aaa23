import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from lightsae.activations import Extraction, LayerTap, Manifest, ShardSet
from lightsae.activations.extraction.extract import extract
from lightsae.activations.extraction.images.image_set import DatasetImages
from lightsae.activations.extraction.images.preparation import DataOptions
from lightsae.activations.extraction.models import ModelOptions, load_model
from lightsae.activations.extraction.multi_process import assemble
from lightsae.activations.extraction.rank_part import Part
from lightsae.errors import LightsaeError
from tests.activations.stand_ins import Noise, TinyNet

STAND_INS = "tests.activations.stand_ins"
ROOT = Path(__file__).parents[3]


def _extraction(out: Path, count: int = 40, bad: tuple[int, ...] = ()) -> Extraction:
    return Extraction(
        tap=LayerTap(load_model(ModelOptions(module=f"{STAND_INS}.TinyNet")), "tokens"),
        images=DatasetImages(Noise(count, bad), None, "noise"),
        out=out,
        model_name="tiny",
        tokens="patch",
        dtype="float32",
        batch_size=6,
        rows_per_shard=50,
        on_error="skip",
        show_progress=False,
    )


def _write_parts(extraction: Extraction, world: int) -> None:
    for rank in range(world):
        part = Part(rank, world)
        replace(extraction, part=part).run()


def _everything(folder: Path) -> list[np.ndarray]:
    """Index and rows in stored order."""
    shards = ShardSet(folder)
    chunks = range(len(shards.chunks))
    index = np.concatenate([shards.read_index(chunk) for chunk in chunks], axis=1)
    rows = np.concatenate(shards.read_activations(chunks))
    shards.close()
    return [index, rows]


def _assert_same(folder: Path, whole: Path) -> None:
    for here, there in zip(_everything(folder), _everything(whole), strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_any_number_of_processes_writes_the_same_rows_in_the_same_order(
    tmp_path: Path, world: int
) -> None:
    (whole,) = _extraction(tmp_path / "whole", bad=(3, 17)).run()
    _write_parts(_extraction(tmp_path / "parts", bad=(3, 17)), world)
    assemble(tmp_path / "parts", world)
    _assert_same(tmp_path / "parts", tmp_path / "whole")
    manifest = Manifest.load(tmp_path / "parts")
    assert manifest.complete
    assert (manifest.rows, manifest.settings) == (whole.rows, whole.settings)
    assert manifest.progress == whole.progress
    assert manifest.norms == whole.norms
    # Float64 sums in another order.
    np.testing.assert_allclose(manifest.mean, whole.mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(manifest.scale, whole.scale, rtol=1e-12)
    names = {path.name for path in (tmp_path / "parts").iterdir()}
    assert names == {"manifest.json", *(entry.name for entry in manifest.shards)}


def test_several_layers_are_put_together_each(tmp_path: Path) -> None:
    layers = ["patches", "tokens", "head"]
    tap = LayerTap(TinyNet().eval().requires_grad_(False), layers)
    whole = replace(_extraction(tmp_path / "whole"), tap=tap, tokens="all")
    parts = replace(whole, out=tmp_path / "parts")
    whole.run()
    _write_parts(parts, 2)
    for folder in parts.folders():
        assemble(folder, 2)
    assert [manifest.layer for manifest in parts.run()] == layers
    for layer in layers:
        _assert_same(tmp_path / "parts" / layer, tmp_path / "whole" / layer)


def test_the_labels_of_stored_batches_are_mixed(tmp_path: Path) -> None:
    extraction = replace(_extraction(tmp_path, 1200), tokens="class", batch_size=50)
    _write_parts(extraction, 3)
    assemble(tmp_path, 3)
    labels = _everything(tmp_path)[0][2]
    counts = np.stack([np.bincount(part, minlength=4) for part in np.split(labels, 12)])
    statistic = ((counts - 25) ** 2 / 25).sum()
    assert statistic / (11 * 3) < 1.6


@pytest.mark.parametrize("fails_at", range(4), ids=["shard0", "shard1", "shard2", "manifest"])
def test_parts_that_were_put_together_halfway_are_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    _extraction(tmp_path / "whole").run()
    _write_parts(_extraction(tmp_path / "parts"), 2)
    real, calls = Path.replace, 0

    def killed(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls > fails_at:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        assemble(tmp_path / "parts", 2)
    _write_parts(_extraction(tmp_path / "parts"), 2)
    assemble(tmp_path / "parts", 2)
    _assert_same(tmp_path / "parts", tmp_path / "whole")


def test_fewer_batches_than_processes_are_refused(tmp_path: Path) -> None:
    says = (
        "13 images are 3 batches of 6, fewer than the 4 processes: "
        "use --nproc_per_node 3 or a smaller batch_size"
    )
    with pytest.raises(LightsaeError, match=f"^{says}$"):
        _write_parts(_extraction(tmp_path, 13), 4)


def _one(out: Path) -> Manifest:
    return extract(
        ModelOptions(module=f"{STAND_INS}.TinyNet"),
        DataOptions(dataset=f"{STAND_INS}.Noise"),
        layer="tokens",
        out=str(out),
        batch_size=6,
        rows_per_shard=50,
    )[0]


def test_one_process_does_not_go_on_where_two_began(tmp_path: Path) -> None:
    _write_parts(_extraction(tmp_path), 2)
    says = (
        f"{tmp_path}: was begun by 2 processes, here are 1: go on with --nproc_per_node 2, "
        f"or remove {tmp_path}/.rank-*-of-2 to begin again"
    )
    with pytest.raises(LightsaeError, match=f"^{re.escape(says)}$"):
        _one(tmp_path)


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "0", "WORLD_SIZE": "2"},
        {"RANK": "a", "WORLD_SIZE": "1"},
        {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"},
    ],
)
def test_half_an_environment_of_torchrun_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LightsaeError, match="expected what torchrun sets, or none of them"):
        _one(tmp_path)


@pytest.mark.parametrize(("begun", "here"), [(1, 2), (3, 2)])
def test_another_number_of_processes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: int, here: int
) -> None:
    _write_parts(_extraction(tmp_path), begun)
    if begun == 1:
        replace(Manifest.load(tmp_path), complete=False).save(tmp_path)
    for name, value in (("RANK", "0"), ("WORLD_SIZE", str(here)), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    says = f"^{tmp_path}: was begun by {begun} process(es)?, here are {here}: go on with --nproc_pe"
    with pytest.raises(LightsaeError, match=says):
        _one(tmp_path)


def test_a_folder_that_only_looks_like_a_part_is_left_alone(tmp_path: Path) -> None:
    for name in (".rank-0-of-2.bak", ".rank-x-of-y"):
        (tmp_path / name).mkdir()
    assert _one(tmp_path).complete
    assert (tmp_path / ".rank-0-of-2.bak").is_dir()


def test_parts_of_other_extractions_are_not_put_together(tmp_path: Path) -> None:
    _write_parts(_extraction(tmp_path), 2)
    part = Part(1, 2).folder(tmp_path)
    replace(Manifest.load(part), model="another").save(part)
    with pytest.raises(LightsaeError, match=r"begun with model = 'tiny', this .* 'another'"):
        assemble(tmp_path, 2)


def _torchrun(out: Path, count: int, world: int = 2) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words += ["--nproc_per_node", str(world), "-m", "lightsae", "extract", "--layer", "tokens"]
    words += ["--model.module", f"{STAND_INS}.TinyNet", "--data.dataset", f"{STAND_INS}.Noise"]
    words += ["--data.arguments", json.dumps({"count": count}), "--out", str(out)]
    words += ["--tokens", "patch", "--dtype", "float32", "--batch_size", "6"]
    words += ["--rows_per_shard", "400"]
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, **paths, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def _rank(launcher: int, rank: int) -> psutil.Process:
    """The process of a rank, once there is one."""
    while True:
        for child in psutil.Process(launcher).children():
            with suppress(
                psutil.NoSuchProcess
            ):  # one that the launcher asked something and is gone
                if child.environ().get("RANK") == str(rank):
                    return child
        time.sleep(0.02)


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_others_and_loses_nothing(tmp_path: Path) -> None:
    count, out = 3000, tmp_path / "cut"
    with _torchrun(out, count) as launcher:
        killed, other = _rank(launcher.pid, 1), _rank(launcher.pid, 0)
        while not (out / ".rank-1-of-2" / "shard-00000.h5").exists():
            assert launcher.poll() is None
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)
        other.wait(timeout=60)
        launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert not (out / "manifest.json").exists()
    with _torchrun(out, count) as launcher:
        said = launcher.communicate(timeout=120)[1]
    assert launcher.returncode == 0, said
    assert f"{4 * count} rows of 8 by 2 processes" in " ".join(said.split())
    whole = replace(_extraction(tmp_path / "whole", count), rows_per_shard=400)
    whole.run()
    _assert_same(out, tmp_path / "whole")
