"""`--trainer.max_time`: how long a command may take, after which the same command goes on."""

import re
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer

from lightsae.cli import main
from lightsae.runs.time_limit import TimeLimit
from lightsae.training import MetricsFile, read_checkpoint

from ..training.helpers import SIZES, make_data, make_module, make_trainer, metrics, write_config
from .test_resume import same


class Clock(TimeLimit):
    """A limit in steps of this command."""

    taken = 0

    def on_train_batch_end(self, trainer: Trainer, *args: object, **kwargs: object) -> None:
        self.taken += 1
        super().on_train_batch_end(trainer, *args, **kwargs)

    def time_elapsed(self, stage: object = None) -> float:
        return float(self.taken)


def go(shards: Path, run: Path, *callbacks: TimeLimit) -> None:
    last = run / "last.ckpt"
    trainer = make_trainer(run, callbacks=callbacks)
    path = last if last.exists() else None
    trainer.fit(make_module(), make_data(shards), ckpt_path=path)


# Ten batches an epoch, two epochs.
@pytest.mark.parametrize("steps", [4, 10, 13])
def test_a_run_whose_time_was_up_goes_on_and_ends_the_same(
    steps: int, shards: Path, tmp_path: Path
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    go(shards, whole)
    taken = []
    while not taken or taken[-1] < 20:
        go(shards, run, Clock({"seconds": steps}))
        taken.append(read_checkpoint(run / "last.ckpt")["global_step"])
    assert taken == [*range(steps, 20, steps), 20]
    for key in ("state_dict", "global_step"):
        found, expected = (read_checkpoint(f / "last.ckpt")[key] for f in (run, whole))
        same(found, expected)
    assert [row for row in metrics(run) if "train/loss" in row] == [
        row for row in metrics(whole) if "train/loss" in row
    ]


SECOND = {"trainer__max_time": "00:00:00:01", "trainer__max_epochs": 100_000}


def test_the_command_says_that_time_was_up_and_the_same_command_goes_on(
    shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config, run = write_config(tmp_path / "config.yaml", shards, **SECOND), tmp_path / "run"
    words = ["fit", "--config", str(config), "--run_dir", str(run)]
    steps = [0]
    for _ in range(2):
        assert main(words) == 0
        said = capfd.readouterr().err.splitlines()
        found = re.fullmatch(
            f"{run}: time is up: stopped after step (\\d+); the same command goes on", said[-1]
        )
        assert found is not None, said
        steps.append(int(found[1]))
    assert said[0] == f"{run}: going on after step {steps[1]} {SIZES}"
    assert 0 < steps[1] < steps[2]
    assert (run / "sae" / "sae.json").exists()


def test_without_a_checkpoint_it_does_not_promise_to_go_on(
    shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(
        tmp_path / "config.yaml", shards, **SECOND, trainer__enable_checkpointing=False
    )
    assert main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]) == 0
    said = capfd.readouterr().err.splitlines()[-1]
    assert re.search(r": time is up: stopped after step \d+, before a checkpoint was written", said)


def test_a_run_that_is_done_in_time_is_finished(
    shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "config.yaml", shards, trainer__max_time={"hours": 1})
    run = tmp_path / "run"
    assert main(["fit", "--config", str(config), "--run_dir", str(run)]) == 0
    assert capfd.readouterr().err.splitlines()[-1] == f"{run}: finished after step 20"


def test_a_timer_of_one_s_own_counts_all_commands_together_and_says_so(
    shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    timer = {"class_path": "Timer", "init_args": {"duration": "00:00:00:01"}}
    config = write_config(
        tmp_path / "config.yaml", shards, trainer__max_epochs=100_000, trainer__callbacks=[timer]
    )
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]
    for start in ("", "nothing left to do, "):
        assert main(words) == 0
        said = capfd.readouterr().err.splitlines()[-1]
        assert re.search(
            rf": {start}the time of its Timer, which counts all commands of the run, is up "
            r"after step \d+$",
            said,
        ), said
    assert MetricsFile(tmp_path / "run" / "metrics.jsonl").rows()


def test_a_checkpoint_of_lightning_s_own_timer_goes_on(shards: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, callbacks=[Timer({"hours": 1})], max_steps=3)
    trainer.fit(make_module(), make_data(shards))
    go(shards, tmp_path, TimeLimit({"hours": 1}))
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 20


def test_a_time_that_is_none_is_told(
    shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "config.yaml", shards, trainer__max_time="an hour")
    assert main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]) == 1
    assert "Timer(duration='an hour')` is not a valid duration" in capfd.readouterr().err
