from collections.abc import Callable
from importlib import import_module
from inspect import getdoc
from pathlib import Path

import numpy as np
import pytest

from lightsae.activations import Manifest
from lightsae.activations.tools.shards_cli import COMMANDS
from lightsae.cli import main

Shards = Callable[..., Path]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["shards", name, "--help"])
    assert f"lightsae shards [options] {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_does(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    function = getattr(import_module(f"lightsae.activations.tools.{name}"), name)
    assert COMMANDS[name].summary == (getdoc(function) or "").splitlines()[0]
    with pytest.raises(SystemExit, match="0"):
        main(["shards", "--help"])
    assert COMMANDS[name].summary in " ".join(capsys.readouterr().out.split())


def test_folders_stand_without_a_name(make_shards: Shards, tmp_path: Path) -> None:
    one, other = (str(make_shards(rows=rows, name=str(rows))) for rows in (20, 24))
    out = str(tmp_path / "out")
    assert main(["shards", "merge", one, other, "--out", out]) == 0
    assert main(["shards", "verify", out]) == 0
    assert Manifest.load(out).rows == 44
    parts = str(tmp_path / "parts")
    assert main(["shards", "split", out, "--out", parts, "--fractions", "[0.5, 0.5]"]) == 0
    assert main(["shards", "info", f"{parts}/0"]) == 0


def test_what_is_written_is_told_last(
    make_shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (str(make_shards(rows=rows, name=str(rows))) for rows in (20, 24))
    array, out = tmp_path / "rows.npy", {name: str(tmp_path / name) for name in COMMANDS}
    np.save(array, np.ones((1, 3), np.float32))
    halves = "[0.5, 0.5]"
    d_in = Manifest.load(one).d_in
    for words, last in (
        (["merge", one, other], [f"{out['merge']}: 44 rows of {d_in}"]),
        (["shuffle", one], [f"{out['shuffle']}: 20 rows of {d_in}"]),
        (["convert", str(array)], [f"{out['convert']}: 1 row of 3"]),
        (
            ["split", one, "--fractions", halves],
            [f"{out['split']}/{part}: 10 rows of {d_in}" for part in (0, 1)],
        ),
    ):
        assert main(["shards", *words, "--out", out[words[0]]]) == 0
        assert capsys.readouterr().err.splitlines()[-len(last) :] == last


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["verify", "nowhere"], 1, "nowhere: no such folder of activation shards"),
        (["mend", "here"], 2, "mend"),
        (["shuffle", "here"], 2, "out"),
        ([], 2, "info"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shards", *words]) == code
    told = capsys.readouterr().err.strip()
    assert told.startswith("lightsae shards: error: ")
    assert says in told
    assert "\n" not in told
