"""Rules and losses are named in a configuration or by options, without their package."""

from pathlib import Path

import pytest
import yaml

from lightsae.cli import main

RULES = {
    "TopK": ["--model.selection.k", "3"],
    "BatchTopK": ["--model.selection.k", "3"],
    "JumpReLU": ["--model.selection.k", "3"],
    "BankTopK": ["--model.selection.keep", "1", "--model.selection.bank", "8"],
    "GroupMax": ["--model.selection.k", "3"],
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_an_option_of_fit(rule: str, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["fit", "--config", str(config), "--run_dir", str(run), "--trainer.max_steps", "1"]
    assert main([*words, "--model.selection", rule, *RULES[rule]]) == 0
    written = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["selection"]
    assert written["class_path"] == f"lightsae.sae.{rule}"


@pytest.mark.parametrize(
    ("loss", "option"), [("Matryoshka", "prefixes=[6]"), ("MultiTopK", "multiple=2")]
)
def test_a_loss_is_an_option_of_fit(loss: str, option: str, config: Path, tmp_path: Path) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]
    words += ["--model.reconstruction", loss, f"--model.reconstruction.{option}"]
    assert main([*words, "--trainer.max_steps", "1"]) == 0


def test_help_lists_what_a_rule_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--model", "SAEModule", "--model.selection.help", "JumpReLU"])
    printed = capsys.readouterr().out
    assert "L0 to be reached" in printed and "bandwidth" in printed
