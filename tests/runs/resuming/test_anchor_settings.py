"""The same command with an anchor: its vocabulary may lie elsewhere, its lambda may not change."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightsae.cli import main
from lightsae.training import read_checkpoint

from ...training.helpers import D_IN, write_config, write_shards


def test_a_vocabulary_may_move_and_lambda_may_not_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tmp_path / "words.safetensors"
    save_file({"vectors": torch.randn(9, D_IN)}, words)
    settings = {"weight": 0.5, "vocabulary": str(words)}
    anchor = {"class_path": "VocabularyAnchor", "init_args": settings}
    config = write_config(
        tmp_path / "config.yaml", write_shards(tmp_path / "shards"), model__init_args__anchor=anchor
    )
    command = ["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]
    assert main([*command, "--trainer.max_epochs", "1"]) == 0
    moved = words.rename(tmp_path / "moved.safetensors")
    again = [*command, "--model.anchor.vocabulary", str(moved)]
    capsys.readouterr()
    assert main([*again, "--model.anchor.weight", "0.6"]) != 0
    assert "model.init_args.anchor.init_args.weight was 0.5, is 0.6" in capsys.readouterr().err
    assert main(again) == 0
    kept = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert kept["global_step"] == 20 and kept["anchor"]["vocabulary"] == str(moved)
