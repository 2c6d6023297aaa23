"""Every way to call the commands, and the `lightning` script."""

import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from lightning.pytorch.cli import LightningCLI

from lightsae.cli import lightning_main, main
from lightsae.sae import SparseAutoencoder


def fit_in(how: str, folder: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    words = ["fit", "--config", str(config), "--run_dir", str(folder)]
    if how == "lightsae":
        return main(words)
    monkeypatch.setattr(sys, "argv", [how, *words])
    if how == "lightning":
        return lightning_main()
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("lightsae", run_name="__main__")
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("how", ["lightsae", "lightning", "python -m lightsae"])
def test_every_way_to_call_it_does_the_same(
    how: str, run: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit_in(how, tmp_path, config, monkeypatch) == 0
    weights = Path("sae") / "sae.safetensors"
    assert (tmp_path / weights).read_bytes() == (run / weights).read_bytes()


def test_the_yaml_also_runs_under_a_bare_lightning_cli(
    run: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bare", "fit", "--config", str(config)])
    with pytest.warns(Warning):
        cli = LightningCLI()
    assert cli.trainer.global_step == 20
    expected = SparseAutoencoder.load(run / "sae")
    for name, parameter in expected.state_dict().items():
        assert torch.equal(cli.model.sae.state_dict()[name], parameter), name


@pytest.mark.parametrize("words", [[], ["--help"], ["run", "app.py"]], ids=" ".join)
def test_lightning_without_the_sdk_names_what_it_can_do(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lightning_sdk", None)
    monkeypatch.setattr(sys, "argv", ["lightning", *words])
    assert lightning_main() == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "fit, validate, test, predict" in said
    assert "lightsae --help" in said


def test_lightning_hands_other_words_to_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    entrypoint: Any = ModuleType("lightning_sdk.cli.entrypoint")
    entrypoint.main_cli = lambda: called.append(sys.argv)
    for name in ("lightning_sdk", "lightning_sdk.cli"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, entrypoint.__name__, entrypoint)
    monkeypatch.setattr(sys, "argv", ["lightning", "run", "app.py"])
    assert lightning_main() == 0
    assert called == [["lightning", "run", "app.py"]]
