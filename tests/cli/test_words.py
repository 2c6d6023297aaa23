"""The words that the command line knows, and the help of each."""

import re
from pathlib import Path

import pytest
import yaml
from jsonargparse import capture_parser

from lightsae.cli import main
from lightsae.runs.run_cli import RunCLI

from ..training.helpers import D_SAE
from .helpers import Ask

WORDS = (
    "fit", "validate", "test", "predict", "sweep", "steer", "effects", "vocabulary", "name",
    "plan", "extract", "report", "calibrate", "compare", "pool", "scaling", "export", "import",
    "push",
    "shards", "demo",
)  # fmt: skip


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]], ids=["none", "--help", "-h"])
def test_without_a_command_it_lists_them(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: lightsae COMMAND")
    for word in WORDS:
        assert f"  {word} " in printed


def test_a_command_that_there_is_not_is_named_with_those_there_are(
    line: Ask,
) -> None:
    status, text = line("fitt")
    assert status == 2
    assert text == f"lightsae: error: no command 'fitt'; there are {', '.join(WORDS)}"


@pytest.mark.parametrize("word", ["fit", "validate", "test", "predict"])
def test_each_command_has_a_help_of_its_own(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([word, "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for option in ("--config", "--run_dir", "--model.help", "--data.help", "--print_config"):
        assert option in printed
    needs = "--config FILE [--run_dir DIR]" if word == "fit" else "--run_dir DIR [--config FILE]"
    assert printed.startswith(f"usage: lightsae {word} {needs} [options]\n")
    for title in ("lightning.pytorch.Trainer, the most used of its options:", "model:", "data:"):
        assert f"\n{title}\n" in printed
    assert "Customize every aspect" not in printed
    assert printed.count("\n") < 120


def explained(text: str) -> dict[str, str | None]:
    """The options that a help explains, each at the start of a line, and the defaults it tells."""
    options = re.split(r"^  (?=--)", text, flags=re.MULTILINE)[1:]
    defaults = [re.search(r"\(default: (\S+)\)", option) for option in options]
    names = [option.split()[0] for option in options]
    return {name: found and found[1] for name, found in zip(names, defaults, strict=True)}


@pytest.mark.parametrize("word", ["fit", "validate", "test", "predict"])
def test_the_help_is_that_of_the_options_that_there_are(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = capture_parser(lambda: RunCLI([word]))._subcommands_action
    actions = commands._name_parser_map[word]._actions
    there = {name: action.default for action in actions for name in action.option_strings}
    with pytest.raises(SystemExit):
        main([word, "--help"])
    here = explained(capsys.readouterr().out)
    ours = {name for name in there if name.startswith("--") and not name.startswith("--trainer")}
    assert ours <= here.keys() <= there.keys()
    for name, default in here.items():
        # Those that are None in the signature are chosen by Lightning when it runs.
        if default is not None and there[name] is not None:
            assert str(there[name]).lower() == default, name


@pytest.mark.parametrize("words", [["-h"], ["--config", "no.yaml", "--help"], ["--help", "--x"]])
def test_help_comes_before_anything_else(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", *words])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: lightsae fit --config FILE")


@pytest.mark.parametrize("word", ["fit", "predict", "extract", "demo"])
def test_an_option_that_there_is_not_is_one_line_and_status_2(word: str, line: Ask) -> None:
    status, text = line(word, "--no_such_option", "3")
    assert status == 2
    assert text.startswith(f"lightsae {word}: error: ")
    assert text.endswith(f"(lightsae {word} --help lists the options)")


@pytest.mark.parametrize("word", ["extract", "demo"])
def test_the_tools_have_a_help_of_their_own(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([word, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: lightsae {word} ")


def test_an_option_of_the_wrong_kind_is_status_2_of_a_tool_too(line: Ask) -> None:
    assert line("demo", "--seeds", "many")[0] == 2


def test_the_model_s_own_options_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--model.help", "SAEModule"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "Size of the dictionary. (required, type: int)" in printed
    for option in ("selection", "regularizer", "aux_k", "d_in", "optimizer", "lr_scheduler"):
        assert f"--model.{option}" in printed


@pytest.mark.parametrize("name", ["ActivationDataModule", "OnlineActivationDataModule"])
def test_the_data_module_s_own_options_can_be_listed_by_its_short_name(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--data.help", name])
    assert caught.value.code == 0
    assert "--data.val_fraction" in capsys.readouterr().out


def test_print_config_is_a_config(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*words: object) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["fit", *map(str, words), "--print_config"])
        assert caught.value.code == 0
        return capsys.readouterr().out

    once = printed("--config", config)
    assert yaml.safe_load(once)["model"]["init_args"]["d_sae"] == D_SAE
    again = tmp_path / "again.yaml"
    again.write_text(once)
    assert printed("--config", again) == once
