"""`lightsae fit` beside a model that runs: stopped and started again, it ends the same."""

import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from lightsae.cli import main
from lightsae.training import read_checkpoint

from ..runs.test_resume import same
from ..training.helpers import finish, metrics, start, start_pair, write_config
from .helpers import Ask

pytestmark = pytest.mark.slow

STAND_INS = "tests.activations.stand_ins"
ONLINE: dict[str, Any] = {
    "class_path": "lightsae.activations.OnlineActivationDataModule",
    "init_args": {
        "model": {"module": f"{STAND_INS}.TinyNet"},
        "data": {"dataset": f"{STAND_INS}.Noise", "arguments": {"count": 400}},
        "layer": "tokens",
        "tokens": "patch",
        "batch_size": 16,
        "val_fraction": 0.1,
        "test_fraction": 0.1,
        "buffer_rows": 200,
        "forward_batch_size": 7,
    },
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1280 rows for training: 80 steps an epoch, 40 with two processes."""
    folder = tmp_path_factory.mktemp("online")
    return write_config(folder / "config.yaml", folder, data=ONLINE)


def wait_for(run: Path, steps: int, processes: list[BaseProcess]) -> None:
    """Until a run has logged so many steps."""
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and all(process.is_alive() for process in processes):
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= steps:
            return
        time.sleep(0.01)
    pytest.fail(f"{run} came to no {steps} steps")


@pytest.mark.parametrize("devices", [1, 2])
def test_stopped_by_sigterm_and_started_again_it_ends_in_the_same_weights(
    devices: int, config: Path, tmp_path: Path
) -> None:
    def fit(run: Path) -> list[BaseProcess]:
        words = ("fit", "--config", config, "--run_dir", run, "--checkpoint_every", 9)
        return [start(*words)] if devices == 1 else start_pair(*words)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert finish(*fit(whole)) == [0] * devices
    processes = fit(parts)
    wait_for(parts, 25, processes)
    for process in processes:
        process.terminate()
    assert finish(*processes) == [143] * devices
    step = read_checkpoint(parts / "checkpoints" / "last.ckpt")["global_step"]
    assert step % (80 // devices) > 0
    assert finish(*fit(parts)) == [0] * devices
    found, expected = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (parts, whole))
    assert found["global_step"] == expected["global_step"] == 160 // devices
    same(found["state_dict"], expected["state_dict"])
    assert metrics(parts) == metrics(whole)


def test_each_command_takes_it(config: Path, tmp_path: Path) -> None:
    words = ["--config", str(config), "--run_dir", str(tmp_path)]
    assert main(["fit", *words, "--trainer.max_epochs", "1"]) == 0
    for word in ("validate", "test", "predict"):
        assert main([word, *words]) == 0


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("layer=token", "layer: TinyNet has no module 'token'; closest: 'tokens'"),
        ("data.folder=photos", "webdataset, arrays; here are folder, dataset"),
        ("forward_batch_size=0", "forward_batch_size is 0, expected at least 1"),
    ],
)
def test_what_is_wrong_is_one_line(
    option: str, says: str, config: Path, tmp_path: Path, line: Ask
) -> None:
    wrong = f"--data.init_args.{option}"
    status, text = line("fit", "--config", config, "--run_dir", tmp_path, wrong)
    assert status == 1
    assert says in text


def test_other_images_are_refused_on_going_on(config: Path, tmp_path: Path, line: Ask) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path)]
    assert main([*words, "--trainer.max_steps", "3"]) == 0
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("count: 400", "count: 401"))
    status, said = line(*words, "--data.init_args.data.arguments.count", 401)
    assert status == 1
    assert "last.ckpt was trained on other shards (digest" in said
