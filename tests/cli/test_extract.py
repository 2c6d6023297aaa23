"""`lightsae extract`: what it makes of its options, and what it refuses in one line."""

import json
from pathlib import Path

import pytest

from lightsae.activations import Manifest
from lightsae.cli import main

from .helpers import Ask

STAND_INS = "tests.activations.stand_ins"


def test_the_command_extracts_a_folder_of_images(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("x/1.png", "y/2.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (20, 20), "red").save(tmp_path / name)
    words = f"""--model.name vit_tiny_patch16_224 --model.pretrained false --layer blocks.0
        --model.arguments {{"img_size":16,"depth":1,"patch_size":8}} --data.size 16
        --data.folder {tmp_path} --out {tmp_path}/shards --tokens pooled""".split()
    assert main(["extract", *words]) == 0
    manifest = Manifest.load(tmp_path / "shards")
    assert (manifest.rows, manifest.d_in, manifest.classes) == (2, 192, ["x", "y"])
    assert manifest.model == "vit_tiny_patch16_224"


def test_the_command_names_an_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", "--nope", "1", "--layer", "a", "--out", "b"]) == 2
    assert "--nope" in capsys.readouterr().err


WORDS = ["--layer", "tokens", "--model.module", f"{STAND_INS}.TinyNet", "--out", "nowhere"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data.size", "0"], "data.size is 0, expected at least 1 pixel"),
        (["--data.crop", "0"], "data.crop is 0.0, expected above 0"),
        (["--data.std", "[0, 0, 0]"], "data.std is [0.0, 0.0, 0.0], expected finite numbers above"),
        (["--model.prefix_tokens=-1"], "model.prefix_tokens is -1, expected at least 0"),
        (["--data.interpolation", "cubic"], "Literal['nearest', 'bilinear', 'bicubic']"),
        (["--out", ""], "out is '', expected a folder"),
        (["--seed", "-1"], "seed is -1, expected at least 0"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_command_tells_in_one_line_what_cannot_be(
    tmp_path: Path,
    words: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    status = main(["extract", *WORDS, "--data.dataset", f"{STAND_INS}.Noise", *words])
    (line,) = capsys.readouterr().err.splitlines()
    assert status > 0
    assert line.startswith("lightsae extract: error: ")
    assert says in line
    assert len(line) < 300
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"item": "dict"}, "Odd {'item': 'dict'} is a dict, expected a PIL image, a tensor or"),
        (
            {"item": "label"},
            "has label 1180591620717411303424, expected -9223372036854775808 to 92233",
        ),
        ({"item": "error"}, "stand_ins.Odd {'item': 'error'} is unreadable: KeyError: 'error'"),
        (
            {"item": "grey"},
            "run up to layer 'tokens', cannot take a batch of images [3, 1, 16, 16]",
        ),
    ],
    ids=["dict", "label", "error", "grey"],
)
def test_the_command_tells_in_one_line_what_an_item_is(
    tmp_path: Path,
    arguments: dict[str, str],
    says: str,
    workers: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--data.dataset", f"{STAND_INS}.Odd", "--data.arguments", json.dumps(arguments)]
    words += ["--out", str(tmp_path / "out"), "--workers", str(workers)]
    assert main(["extract", *WORDS, *words]) == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
    assert says in line
    assert "Traceback" not in line
    assert len(line) < 500
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_images_with_a_graph_are_taken_without_it(tmp_path: Path, workers: int) -> None:
    words = ["--data.dataset", f"{STAND_INS}.Odd", "--data.arguments", '{"item": "graph"}']
    words += ["--out", str(tmp_path / "out"), "--workers", str(workers)]
    assert main(["extract", *WORDS[:-2], *words]) == 0
    assert Manifest.load(tmp_path / "out").rows == 3


NUMBERED = ["--tokens", "pooled", "--model.module", f"{STAND_INS}.Numbered",
            "--data.dataset", f"{STAND_INS}.Noise"]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "folders"),
    [
        ("0", [""]),
        ("'2'", [""]),
        ("[0]", [""]),
        ("[0, 2]", ["0", "2"]),
        ("['0', 2]", ["0", "2"]),
    ],
)
@pytest.mark.parametrize("in_file", [True, False], ids=["config", "words"])
def test_layers_that_are_called_by_numbers(
    tmp_path: Path, layer: str, folders: list[str], in_file: bool
) -> None:
    words = ["--layer", layer.strip("'")]
    if in_file:
        (tmp_path / "config.yaml").write_text(f"layer: {layer}\n")
        words = ["--config", str(tmp_path / "config.yaml")]
    assert main(["extract", *NUMBERED, *words, "--out", str(tmp_path / "out")]) == 0
    names = folders if folders != [""] else [layer.strip("'[]")]
    found = [Manifest.load(tmp_path / "out" / folder) for folder in folders]
    assert [manifest.layer for manifest in found] == names
    assert [manifest.d_in for manifest in found] == [{"0": 4, "2": 2}[name] for name in names]


@pytest.mark.parametrize("layer", ["1.10", "[1.10, blocks.1]"])
def test_a_layer_that_yaml_reads_as_a_fraction_wants_quotes(
    tmp_path: Path, layer: str, line: Ask
) -> None:
    (tmp_path / "config.yaml").write_text(f"layer: {layer}\n")
    words = ["--config", tmp_path / "config.yaml", "--out", tmp_path / "out"]
    status, text = line("extract", *NUMBERED, *words)
    assert status == 2
    assert "config.yaml: line 1: layer: 1.10 would be read as 1.1: put it in quotes" in text


def test_a_model_made_otherwise_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--layer", "0", "--tokens", "pooled", "--model.module", f"{STAND_INS}.Activated",
             "--data.dataset", f"{STAND_INS}.Noise", "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(["extract", *words, "--model.arguments", '{"kind": "ReLU"}']) == 0
    capsys.readouterr()
    assert main(["extract", *words, "--model.arguments", '{"kind": "GELU"}']) == 1
    assert "was begun with arguments = {'kind': 'ReLU'}" in capsys.readouterr().err


def test_a_config_that_is_not_text_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    assert main(["extract", "--config", str(tmp_path / "config.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"a file among --config {tmp_path}/config.yaml is not text" in line
