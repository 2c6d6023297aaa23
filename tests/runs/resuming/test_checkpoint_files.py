"""Checkpoints: written whole or not at all, read without running anything, taken in time."""

import errno
import os
import pickle
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.training import AtomicCheckpointIO, SAEModule, read_checkpoint

from ...training.helpers import make_data, make_module, make_trainer

CONTENT = {
    "state_dict": {"w": torch.arange(3.0)},
    "global_step": 4,
    "pytorch-lightning_version": "2.6.0",
}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    found = AtomicCheckpointIO().load_checkpoint(path)
    assert torch.equal(found["state_dict"]["w"], CONTENT["state_dict"]["w"])
    assert found["global_step"] == 4
    assert files(path.parent) == ["last.ckpt"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("unexpected pos 576 vs 534")],
    ids=["from the system", "from torch"],
)
@pytest.mark.parametrize("failing", ["torch.save", "os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails_leaves_the_old_checkpoint_and_nothing_else(
    failing: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    before = path.read_bytes()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(failing, fail)
        with pytest.raises(LightsaeError, match=f"{path} cannot be written: .*(No|no) space"):
            AtomicCheckpointIO().save_checkpoint({**CONTENT, "global_step": 5}, path)
    assert path.read_bytes() == before
    assert files(tmp_path) == ["last.ckpt"]


def test_a_disk_that_is_really_full_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(LightsaeError, match=f"{path} cannot be written"):
            AtomicCheckpointIO().save_checkpoint(
                {**CONTENT, "state_dict": {"w": torch.zeros(100_000)}}, path
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert read_checkpoint(path)["global_step"] == 4
    assert files(tmp_path) == ["last.ckpt"]


UNREADABLE: dict[str, tuple[Any, str]] = {
    "a function": ({"f": lambda: 0}, "its f is function"),
    "a number of numpy": ({"a": {"b": [1, np.float64(2)]}}, "its a.b.1 is numpy.float64"),
    "a class of the user's": ({"optimizer_states": [{"state": {0: Path("x")}}]}, "its optimizer_"
        "states.0.state.0 is pathlib.PosixPath"),
    "of a callback": ({"callbacks": {"Mine": {"best": Path("x")}}}, "callback Mine: its best is"),
    "all of a callback": ({"callbacks": {"Mine": Path("x")}}, "callback Mine: its state is path"),
    "a key": ({"loops": {Path("x"): 1}}, "its loops is dict"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "says"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_could_not_be_read_back_is_not_written(
    content: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    before = path.read_bytes()
    with pytest.raises(LightsaeError) as caught:
        AtomicCheckpointIO().save_checkpoint({**CONTENT, **content}, path)
    assert str(caught.value).startswith(f"{path} cannot be written: ")
    assert says in str(caught.value)
    assert str(caught.value).endswith("could not be read back: keep tensors and plain values")
    assert (path.read_bytes(), files(tmp_path)) == (before, ["last.ckpt"])


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def damaged(kind: str) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(CONTENT, buffer)
    whole = buffer.getvalue()
    kinds: dict[str, Any] = {
        "empty": b"",
        "text": b"not a checkpoint\n",
        "truncated": whole[: len(whole) // 2],
        "short of its end": whole[:-10],
        "plain pickle": pickle.dumps(CONTENT["global_step"]),
        "pickle bomb": pickle.dumps(Bomb()),
    }
    if kind in kinds:
        return bytes(kinds[kind])
    others: dict[str, Any] = {
        "bomb in a checkpoint": {**CONTENT, "extra": Bomb()},
        "a list": [1, 2],
        "tensors alone": CONTENT["state_dict"],
        "no step": {key: CONTENT[key] for key in CONTENT if key != "global_step"},
        "weights that are none": {**CONTENT, "state_dict": 5},
    }
    buffer = io.BytesIO()
    torch.save(others[kind], buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "text",
        "truncated",
        "short of its end",
        "plain pickle",
        "pickle bomb",
        "bomb in a checkpoint",
        "a list",
        "tensors alone",
        "no step",
        "weights that are none",
    ],
)
@pytest.mark.parametrize("read", [read_checkpoint, AtomicCheckpointIO().load_checkpoint])
def test_a_file_that_is_no_checkpoint_is_named_and_runs_nothing(
    read: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    path.write_bytes(damaged(kind))
    with pytest.raises(LightsaeError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path} is not a ")
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == ["last.ckpt"]


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=f"{tmp_path / 'no.ckpt'}: no such checkpoint"):
        read_checkpoint(tmp_path / "no.ckpt")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="no such checkpoint"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("read", [read_checkpoint, AtomicCheckpointIO().load_checkpoint])
def test_one_altered_byte_of_a_tensor_is_noticed(read: Any, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    content = bytearray(path.read_bytes())
    content[content.index(CONTENT["state_dict"]["w"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(LightsaeError, match=f"{path} is not a readable .* part .* is damaged"):
        read(path)


@pytest.mark.parametrize("missing", ["optimizer_states", "lr_schedulers", "loops"])
def test_a_run_does_not_go_on_from_weights_alone(
    missing: str, shards: Path, tmp_path: Path
) -> None:
    make_trainer(tmp_path, max_epochs=1).fit(make_module(), make_data(shards))
    path = tmp_path / "last.ckpt"
    content = read_checkpoint(path)
    del content[missing]
    AtomicCheckpointIO().save_checkpoint(content, path)
    [tested] = make_trainer(tmp_path).test(
        make_module(), make_data(shards), ckpt_path=path, verbose=False
    )
    assert "test/loss" in tested
    with pytest.raises(LightsaeError, match=rf"{path} is nothing to go on from.* no {missing}"):
        make_trainer(tmp_path).fit(make_module(), make_data(shards), ckpt_path=path)


@pytest.mark.parametrize(
    ("loops", "missing"),
    [
        ({}, "loops.fit_loop"),
        (5, "loops.fit_loop"),
        ({"fit_loop": None}, "loops.fit_loop"),
        ({"fit_loop": {}}, "loops.fit_loop.state_dict"),
    ],
    ids=["none", "number", "null", "empty"],
)
def test_a_run_does_not_go_on_without_its_position(
    loops: Any, missing: str, shards: Path, tmp_path: Path
) -> None:
    make_trainer(tmp_path, max_epochs=1).fit(make_module(), make_data(shards))
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({**read_checkpoint(path), "loops": loops}, path)
    with pytest.raises(LightsaeError, match=rf"{path} is nothing to go on from.* no {missing}$"):
        make_trainer(tmp_path).fit(make_module(), make_data(shards), ckpt_path=path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sae.W_dec": None}, "it has no sae.W_dec"),
        ({"sae.W_dec": torch.zeros(24, 5)}, r"its sae.W_dec is \[24, 5\], expected \[24, 6\]"),
        ({"sae.W_gate": torch.zeros(3)}, "sae.W_gate has no place here"),
        ({"dead_latents.tokens_since_fired": None}, "it has no dead_latents.tokens_since_fired"),
    ],
    ids=["missing", "other shape", "unexpected", "no dead counters"],
)
def test_a_checkpoint_of_another_model_is_named_with_the_tensor(
    change: dict[str, Any], message: str, shards: Path, tmp_path: Path
) -> None:
    make_trainer(tmp_path, max_epochs=1).fit(make_module(), make_data(shards))
    path = tmp_path / "last.ckpt"
    content = read_checkpoint(path)
    state = {**content["state_dict"], **change}
    content["state_dict"] = {name: tensor for name, tensor in state.items() if tensor is not None}
    AtomicCheckpointIO().save_checkpoint(content, path)
    with pytest.raises(LightsaeError, match=f"{path} is a checkpoint of another model: {message}"):
        make_trainer(tmp_path).fit(make_module(), make_data(shards), ckpt_path=path)


def test_a_checkpoint_holds_all_that_a_run_needs_to_go_on(shards: Path, tmp_path: Path) -> None:
    make_trainer(tmp_path, every=4, max_steps=14).fit(make_module(), make_data(shards))
    content = read_checkpoint(tmp_path / "last.ckpt")
    assert content["state_dict"].keys() == {
        "sae.W_enc",
        "sae.b_enc",
        "sae.W_dec",
        "sae.b_dec",
        "sae.scale",
        "dead_latents.tokens_since_fired",
    }
    assert content["selection"] == {"rule": "TopK", "k": 3}
    assert content["hyper_parameters"]["d_in"] == 6
    (position,) = content["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    assert (position["epoch"], position["batches"]) == (1, 4)


def test_a_module_reads_its_checkpoint_without_running_it(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    path.write_bytes(damaged("bomb in a checkpoint"))
    with pytest.raises(LightsaeError, match="is not a readable checkpoint"):
        make_trainer(tmp_path).fit(make_module(), make_data(shards), ckpt_path=path)
    with pytest.raises(LightsaeError, match="is not a readable checkpoint"):
        SAEModule.load_from_checkpoint(path, d_in=6)
    assert files(tmp_path) == ["last.ckpt"]
