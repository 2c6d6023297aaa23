"""What is wrong with a grid is told in one line, before anything is trained."""

from pathlib import Path
from typing import Any

import pytest

from lightsae.cli import main
from lightsae.runs.sweep import SweepFile

from .helpers import write_sweep

GRIDS: dict[str, tuple[dict[str, Any], int, str]] = {
    "an empty list": ({"seed": []}, 2, "sweep.seed: the list is empty"),
    "a value twice": ({"weight": [0.1, 0.1]}, 2, "sweep.weight: 0.1 is given twice"),
    "two that share a folder": (
        {"weight": [0.1, 0.1 + 1e-15]}, 2, "sweep.weight: 0.1 is given twice"
    ),
    "a weight of 0": ({"weight": [0.0]}, 2, "the baseline needs none"),
    "a negative rate": ({"lr": [-1.0]}, 2, "sweep.lr: -1.0, expected a positive number"),
    "a seed below 0": ({"seed": [-1]}, 2, "sweep.seed: -1, expected at least 0"),
    "k above d_sae": ({"k": [99]}, 1, "k = 99 is larger than d_sae = 24"),
    "no such regularizer": ({"regularizer": ["Nothing"]}, 1, "Nothing"),
    "a regularizer twice": (
        {"regularizer": ["OffSupportL1", "lightsae.sae.OffSupportL1"]}, 1, "is given twice"
    ),
    "no weight": ({"regularizer": ["OffSupportL1"]}, 1, "OffSupportL1 has no weight"),
    "a weight to be found": (
        {"weight": [0.1], "find_lambda": True}, 2, "leave one of the two out"
    ),
    "embeddings that the data does not have": (
        {"weight": [0.1], "regularizer": [
            {"class_path": "MonosemanticityLoss", "init_args": {"embeddings": "data"}}
        ]},
        1, "give the data module embeddings",
    ),
    "an unknown key": ({"lambdas": [0.1]}, 2, "lambdas"),
    "a text for a number": ({"k": ["many"]}, 2, "many"),
    "a share above 1": ({"find_share": 2.0}, 2, "sweep.find_share: 2.0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", GRIDS)
def test_one_line_names_it(
    kind: str, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    grid, status, told = GRIDS[kind]
    path = write_sweep(tmp_path / "sweep.yaml", shards, grid)
    assert main(["sweep", "--config", str(path), "--run_dir", str(tmp_path / "sweep")]) == status
    errors = [line for line in capfd.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1 and told in errors[0], errors
    assert not (tmp_path / "sweep" / "members").exists()


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no regularizer to weigh": (
        {"model__init_args__regularizer": None}, "there is no regularizer to weigh"
    ),
    "no validation split": ({"data__init_args__val_fraction": 0.0}, "val_fraction is 0"),
    "no batch of it": ({"trainer__limit_val_batches": 0}, "limit_val_batches is 0"),
    "no end": ({"trainer__max_epochs": -1}, "a sweep needs an end"),
    "a callback": (
        {"trainer__callbacks": [{"class_path": "EarlyStopping",
                                 "init_args": {"monitor": "val/loss"}}]},
        "trainer.callbacks: a sweep has none",
    ),
    "several processes": ({"trainer__devices": 2}, "one process"),
    "half precision": ({"trainer__precision": "16-mixed"}, "precision"),
    "groups that do not divide": (
        {"model__init_args__selection": {"class_path": "GroupMax", "init_args": {"k": 7}}},
        "k = 7 groups do not divide d_sae = 24",
    ),
    "banks that do not divide": (
        {"model__init_args__selection":
         {"class_path": "BankTopK", "init_args": {"keep": 1, "bank": 7}}},
        "bank = 7 does not divide d_sae = 24",
    ),
    "a recorded step": ({"model__init_args__cuda_graph": True}, "cuda_graph"),
    "a seed that is none": ({"seed_everything": False}, "seed_everything"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SETTINGS)
def test_so_does_what_a_stack_cannot_do(
    kind: str, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes, told = SETTINGS[kind]
    path = write_sweep(tmp_path / "sweep.yaml", shards, {"weight": [0.1]}, **changes)
    assert main(["sweep", "--config", str(path), "--run_dir", str(tmp_path / "sweep")]) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1 and told in errors[0], errors


def test_a_k_that_banks_cannot_keep_is_named(
    shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    banks = {"class_path": "BankTopK", "init_args": {"keep": 1, "bank": 12}}
    path = write_sweep(
        tmp_path / "sweep.yaml", shards, {"k": [2, 3], "weight": [0.1]},
        model__init_args__selection=banks,
    )  # fmt: skip
    assert main(["sweep", "--config", str(path), "--run_dir", str(tmp_path / "sweep")]) == 1
    told = "k3-d_sae24-baseline-lr0.01-seed3: k = 3 of d_sae = 24 are 1.5 of every bank of 12"
    assert told in capfd.readouterr().err


def test_settings_of_a_sweep_that_cannot_be_read_are_named(
    shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(tmp_path / "sweep.yaml", shards, {"weight": [0.1]})
    folder = tmp_path / "sweep"
    SweepFile(folder / "sweep.json").add("grid", [])
    for text in ("", "a: ["):
        (folder / "config.yaml").write_text(text)
        assert main(["sweep", "--config", str(path), "--run_dir", str(folder)]) == 1
        errors = [line for line in capfd.readouterr().err.splitlines() if "error:" in line]
        assert len(errors) == 1 and f"{folder}/config.yaml" in errors[0]
