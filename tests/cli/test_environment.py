"""Half an environment of torchrun or SLURM: one line before anything is made."""

import os
from pathlib import Path
from typing import Any

import pytest

from lightsae.runs.launch_environment import require_processes, require_whole_launch

from .helpers import Ask

NAMES = ("SLURM_", "TORCHELASTIC_", "OMPI_")
RANKS = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "a",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "MASTER_PORT": "12000",
}
SRUN = {
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


def less(whole: dict[str, str], *missing: str, **changed: str) -> dict[str, str]:
    return {name: value for name, value in whole.items() if name not in missing} | changed


CASES: dict[str, tuple[dict[str, str], int, str]] = {
    "sbatch --ntasks=2 without srun": (
        {"SLURM_NTASKS": "2"}, 1, "SLURM_NTASKS is 2, but srun did not start this command: "
        "begin it with srun, or unset SLURM_NTASKS for one process"),
    "srun variables of the batch script": (
        less(SRUN, "SLURM_STEP_ID"), 2, "SLURM_NTASKS is 2, but srun did not start"),
    "srun --ntasks=2": (
        less(SRUN, "SLURM_NTASKS_PER_NODE"), 2, "SLURM_NTASKS_PER_NODE is not set, SLURM_NTASKS "
        "is: give --ntasks-per-node"),
    "no rank of SLURM": (less(SRUN, "SLURM_PROCID"), 2, "SLURM_PROCID is not set, SLURM_NTASKS is"),
    "no local rank of SLURM": (less(SRUN, "SLURM_LOCALID"), 2, "SLURM_LOCALID is not set"),
    "a word for SLURM's tasks": ({"SLURM_NTASKS": "x"}, 1, "SLURM_NTASKS is 'x', expected a"),
    "devices that are not SLURM's": (SRUN, 1, "SLURM_NTASKS is 2, trainer.devices and "
        "trainer.num_nodes make 1: expected as many processes"),
    "torchrun without its ranks": (
        {"TORCHELASTIC_RUN_ID": "a"}, 1, "RANK is not set, TORCHELASTIC_RUN_ID is"),
    "torchrun without its local rank": (less(TORCHRUN, "LOCAL_RANK"), 2, "LOCAL_RANK is not set"),
    "a word for torchrun's rank": (less(TORCHRUN, RANK="x"), 2, "RANK is 'x', expected a whole"),
    "a rank that there is not": (less(TORCHRUN, RANK="2"), 2, "RANK is 2, trainer.devices and "
        "trainer.num_nodes make 2: start them with torchrun or srun, or unset RANK"),
    "devices that are not torchrun's": (TORCHRUN, 1, "WORLD_SIZE is 2, trainer.devices and"),
    "a word for the local rank": ({"LOCAL_RANK": "x"}, 1, "LOCAL_RANK is 'x', expected a whole"),
    "a rank alone": ({"LOCAL_RANK": "1"}, 1, "LOCAL_RANK is 1, trainer.devices and"),
    "a rank of another launcher alone": ({"RANK": "1"}, 1, "RANK is 1, trainer.devices and"),
    "a rank of SLURM alone": ({"SLURM_PROCID": "3"}, 1, "SLURM_PROCID is 3, trainer.devices and"),
    "a local rank that there is not": ({"LOCAL_RANK": "5"}, 2, "LOCAL_RANK is 5, trainer.devices"),
    "more processes than the trainer's": (
        {"RANK": "0", "WORLD_SIZE": "2"}, 1, "WORLD_SIZE is 2, trainer.devices and"),
    "more of the trainer's than tasks": (
        {"SLURM_NTASKS": "1"}, 2, "SLURM_NODEID is not set by the launcher of this process"
    ),
    "no place to meet": ({"LOCAL_RANK": "0"}, 2, "MASTER_PORT is not set, LOCAL_RANK is"),
    "a word for the port": (
        {"LOCAL_RANK": "0", "MASTER_PORT": "x"}, 2, "MASTER_PORT is 'x', expected a whole number"),
    "a word for the node": ({"NODE_RANK": "x"}, 2, "NODE_RANK is 'x', expected a whole number"),
    "a word for a port of one's own": ({"MASTER_PORT": "x"}, 2, "MASTER_PORT is 'x', expected a"),
}  # fmt: skip


@pytest.mark.parametrize(("variables", "devices", "says"), CASES.values(), ids=CASES)
def test_half_an_environment_is_refused_in_one_line(
    variables: dict[str, str],
    devices: int,
    says: str,
    config: Path,
    tmp_path: Path,
    line: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in os.environ:
        if name.startswith(NAMES) or name in RANKS:
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run = tmp_path / "run"
    options: list[Any] = ["--config", config, "--run_dir", run, "--trainer.devices", devices]
    status, text = line("fit", *options)
    assert status == 1
    assert says in text
    assert not run.exists()


WHOLE = {
    "one process": ({}, 1, 1),
    "two of torchrun": (TORCHRUN, 2, 2),
    "two of srun": (SRUN, 2, 2),
    "torchrun on two nodes of SLURM": ({**SRUN, **TORCHRUN, "WORLD_SIZE": "4"}, 4, 2),
    "one task of sbatch": ({"SLURM_NTASKS": "1"}, 1, 1),
    "a shell of SLURM": ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "bash"}, 1, 1),
    "another launcher": ({"LOCAL_RANK": "1", "NODE_RANK": "1", "MASTER_PORT": "12000"}, 4, 2),
}


@pytest.mark.parametrize(("variables", "world", "here"), WHOLE.values(), ids=WHOLE)
def test_a_whole_environment_is_welcome(
    variables: dict[str, str],
    world: int,
    here: int,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    for name in os.environ:
        if name.startswith(NAMES) or name in RANKS:
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    require_whole_launch()
    require_processes(world, here)
    assert recwarn.list == []


@pytest.mark.parametrize("word", ["shards", "export"])
def test_what_runs_as_one_process_does_not_look_at_the_launcher(
    word: str, monkeypatch: pytest.MonkeyPatch, line: Ask
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    words = {"shards": ["info", "nowhere"], "export": ["nowhere", "--out", "there"]}[word]
    _, text = line(word, *words)
    assert "nowhere" in text
    assert "SLURM" not in text
