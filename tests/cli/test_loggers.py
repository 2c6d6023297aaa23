"""Loggers of Lightning by config, beside the run's own metrics.jsonl."""

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest

from lightsae.cli import main
from lightsae.training import MetricsFile

from .helpers import Ask

FROM = "lightning.pytorch.loggers"


def test_a_csv_logger_gets_what_metrics_jsonl_gets(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--config", str(config), "--run_dir", str(run), "--trainer.max_steps=4"]
    logger = [f"--trainer.logger={FROM}.CSVLogger", f"--trainer.logger.save_dir={tmp_path}/csv"]
    assert main(["fit", *words, *logger]) == 0
    (path,) = (tmp_path / "csv").rglob("metrics.csv")
    with path.open() as file:
        logged = [row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]]
    own = [row["train/loss"] for row in MetricsFile(run / "metrics.jsonl").rows()
           if "train/loss" in row]  # fmt: skip
    assert [float(value) for value in logged] == pytest.approx(own)


def test_several_loggers_are_a_list(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    path = tmp_path / "loggers.yaml"
    path.write_text(
        f"trainer:\n  logger:\n"
        f"  - class_path: {FROM}.CSVLogger\n    init_args: {{save_dir: {tmp_path}/csv}}\n"
        f"  - class_path: {FROM}.TensorBoardLogger\n    init_args: {{save_dir: {tmp_path}/tb}}\n"
    )
    words = ["--run_dir", str(tmp_path / "run"), "--trainer.max_steps=4"]
    assert main(["fit", "--config", str(config), "--config", str(path), *words]) == 0
    assert list((tmp_path / "csv").rglob("metrics.csv"))
    assert list((tmp_path / "tb").rglob("events.out.tfevents.*"))
    assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_without_a_logger_nothing_is_logged(config: Path, tmp_path: Path) -> None:
    words = ["--run_dir", str(tmp_path / "run"), "--trainer.max_steps=4", "--trainer.logger=false"]
    assert main(["fit", "--config", str(config), *words]) == 0
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_logger_whose_package_is_missing_is_one_line(
    config: Path, tmp_path: Path, line: Ask
) -> None:
    words = ["fit", "--config", config, "--run_dir", tmp_path / "run"]
    status, text = line(*words, f"--trainer.logger={FROM}.WandbLogger")
    assert status == 1 and "wandb" in text


def test_without_a_save_dir_loggers_write_into_the_run_folder(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    path = tmp_path / "loggers.yaml"
    path.write_text(
        f"trainer:\n  logger:\n  - class_path: {FROM}.CSVLogger\n"
        "  - class_path: TensorBoardLogger\n    init_args: {name: board}\n"
    )
    run = tmp_path / "run"
    words = ["--run_dir", str(run), "--trainer.max_steps=2"]
    assert main(["fit", "--config", str(config), "--config", str(path), *words]) == 0
    assert list(run.glob("lightning_logs/*/metrics.csv"))
    assert list(run.glob("board/*/events.out.tfevents.*"))


def test_a_save_dir_that_is_given_stays(config: Path, tmp_path: Path) -> None:
    words = ["--config", str(config), "--run_dir", str(tmp_path / "run"), "--trainer.max_steps=2"]
    logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}/csv"]
    assert main(["fit", *words, *logger]) == 0
    assert list((tmp_path / "csv").rglob("metrics.csv"))
    assert not list((tmp_path / "run").rglob("metrics.csv"))
