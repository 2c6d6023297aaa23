"""Paths in options and YAML: `~` and variables stand for folders, a number is a name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser
from safetensors.torch import save_file

from lightsae.activations import ActivationDataModule, DataOptions, Manifest, ModelOptions
from lightsae.activations.sources import DigitsSource
from lightsae.cli import main
from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.sae import SparseAutoencoder

from ..activations.stand_ins import TinyNet
from ..training.helpers import write_config, write_shards
from .helpers import Ask

ROOTS = ["~", "$BASE", "${BASE}", "~/../{name}"]
STAND_INS = "tests.activations.stand_ins"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder, while the current folder is another one."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("BASE", str(home))
    monkeypatch.chdir(here)
    return home


@pytest.fixture(params=ROOTS)
def root(request: pytest.FixtureRequest, home: Path) -> str:
    return str(request.param).replace("{name}", home.name)


def nothing_here() -> None:
    assert list(Path.cwd().iterdir()) == []


def test_a_run_and_its_shards(root: str, home: Path) -> None:
    write_shards(home / "shards")
    config = write_config(
        home / "config.yaml",
        Path(f"{root}/shards"),
        run_dir=f"{root}/run",
        trainer__max_steps=1,
        trainer__limit_val_batches=1,
        trainer__logger={"class_path": "CSVLogger", "init_args": {"save_dir": f"{root}/logs"}},
        trainer__callbacks=[
            {"class_path": "ModelCheckpoint", "init_args": {"dirpath": f"{root}/best"}}
        ],
    )
    assert main(["fit", "--config", str(config)]) == 0
    assert SparseAutoencoder.load(home / "run" / "sae").d_sae == 24
    assert list((home / "best").iterdir()) and list((home / "logs").iterdir())
    path = f"{root}/run/checkpoints/last.ckpt"
    assert main(["validate", "--config", str(config), "--ckpt_path", path]) == 0
    assert main(["export", path, "--out", f"{root}/alone"]) == 0
    assert SparseAutoencoder.load(home / "alone").d_sae == 24
    nothing_here()


def test_a_run_folder_by_lightning_s_name(home: Path) -> None:
    config = write_config(
        home / "config.yaml", write_shards(home / "shards"), trainer__default_root_dir="~/run"
    )
    assert main(["fit", "--config", str(config), "--trainer.max_steps=1"]) == 0
    assert (home / "run" / "sae").is_dir()
    nothing_here()


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--config", "~/fit.yaml"],
        ["fit", "--config=${BASE}/fit.yaml"],
        ["validate", "-c", "$BASE/fit.yaml"],
        ["test", "--config", "$BASE/fit.yaml"],
        ["predict", "--config", "~/fit.yaml"],
        ["sweep", "--config", "$BASE/fit.yaml"],
        ["extract", "--config=$BASE/extract.yaml"],
    ],
    ids=" ".join,
)
def test_a_configuration(words: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(home / "fit.yaml", home / "shards", run_dir="marked")
    extraction = {"model": {"module": f"{STAND_INS}.TinyNet"}, "layer": "tokens", "out": "marked"}
    (home / "extract.yaml").write_text(yaml.safe_dump(extraction))
    with pytest.raises(SystemExit) as end:
        main([*words, "--print_config"])
    assert end.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["out" if words[0] == "extract" else "run_dir"] == "marked"
    nothing_here()


def test_a_configuration_in_a_place_that_there_is_not(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", "$NO_SUCH_DISK/fit.yaml"]) == 1
    assert "$NO_SUCH_DISK/fit.yaml: $NO_SUCH_DISK is not set" in capsys.readouterr().err


def test_a_repeated_key_is_found_in_an_expanded_configuration(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "fit.yaml").write_text("run_dir: a\nrun_dir: b\n")
    assert main(["fit", "--config", "$BASE/fit.yaml"]) == 2
    assert f"{home}/fit.yaml: line 2: run_dir is given twice" in capsys.readouterr().err


def test_settings_in_place_of_a_configuration_file(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", "run_dir: $HERE", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["run_dir"] == "$HERE"


@pytest.mark.parametrize("data", ["folder", "arrays"])
def test_an_extraction(data: str, root: str, home: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (home / "images").mkdir()
    image.new("RGB", (16, 16)).save(home / "images" / "a.png")
    np.save(home / "images.npy", np.zeros((2, 16, 16, 3), np.uint8))
    save_file(TinyNet().state_dict(), home / "weights.safetensors")
    sources = {"folder": f"{root}/images", "arrays": f"{root}/images.npy"}
    words = ["--model.module", f"{STAND_INS}.TinyNet", f"--data.{data}", sources[data],
             "--data.size", "16", "--data.mean", "[0,0,0]", "--data.std", "[1,1,1]",
             "--model.weights", f"{root}/weights.safetensors", "--layer", "tokens"]  # fmt: skip
    assert main(["extract", *words, "--out", f"{root}/shards"]) == 0
    assert Manifest.load(home / "shards").complete
    nothing_here()


def test_every_source_of_images_and_models(root: str, home: Path) -> None:
    for name in ("folder", "huggingface", "webdataset", "arrays"):
        assert same(getattr(DataOptions(**{name: f"{root}/x"}), name), home / "x")
    assert same(ModelOptions(name=f"{root}/x").name, home / "x")
    assert same(ModelOptions(weights=f"{root}/x").weights, home / "x")
    assert same(DigitsSource(encoders=f"{root}/x").encoders, home / "x")
    assert same(ActivationDataModule(f"{root}/x").path, home / "x")


def same(found: str | Path | None, expected: Path) -> bool:
    return found is not None and Path(found).resolve() == expected


def test_the_tools(root: str, home: Path) -> None:
    write_shards(home / "a", labels=True)
    np.save(home / "rows.npy", np.ones((6, 3), np.float32))
    np.save(home / "labels.npy", np.zeros(6, np.int64))
    quiet = ("--show_progress", "false")
    for words in (
        ("info", f"{root}/a"),
        ("verify", f"{root}/a", *quiet),
        ("shuffle", f"{root}/a", "--out", f"{root}/b", *quiet),
        ("split", f"{root}/a", "--out", f"{root}/c", "--fractions", "[0.5, 0.5]", *quiet),
        ("merge", f"{root}/c/0", f"{root}/c/1", "--out", f"{root}/d", *quiet),
        ("convert", f"{root}/rows.npy", "--labels", f"{root}/labels.npy", "--out", f"{root}/e",
         *quiet),
    ):  # fmt: skip
        assert main(["shards", *words]) == 0, words
    for name in ("b", "c/0", "d", "e"):
        assert Manifest.load(home / name).complete
    nothing_here()


def test_the_demo(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def run_steps(out: Path, seeds: int) -> None:
        raise Asked(out)

    monkeypatch.setattr("lightsae.demo.steps.run_steps", run_steps)
    for words in (["--run_dir", "~/demo"], ["--run_dir", "$BASE/demo"]):
        with pytest.raises(Asked) as caught:
            main(["demo", *words])
        assert caught.value.args == (home / "demo",)


@pytest.mark.parametrize(
    ("path", "says"),
    [("$NO_SUCH/run", "$NO_SUCH is not set"), ("~nobody_/run", "there is no user nobody_")],
)
def test_a_folder_that_does_not_stand_for_anything_is_refused(
    path: str, says: str, config: Path, home: Path, line: Ask
) -> None:
    for words in (
        ("fit", "--config", config, "--run_dir", path),
        ("fit", "--config", config, "--data.init_args.path", path),
        ("shards", "info", path),
        ("export", path, "--out", "sae"),
    ):
        status, text = line(*words)
        assert status == 1
        assert text.endswith(f"error: {path}: {says}")
    nothing_here()


def test_a_name_with_such_letters_that_is_there_is_meant_as_it_is(home: Path) -> None:
    for name in ("~nobody_", "a$NO_SUCH"):
        Path(name).mkdir()
        assert expanded(f"{name}/x") == f"{name}/x"
    assert expanded("a ~ b/$") == "a ~ b/$"
    Path("$BASE").mkdir()
    assert expanded("$BASE/x") == f"{home}/x"


Write = Callable[[dict[str, Any]], str]


@pytest.fixture
def written(home: Path) -> Write:
    def write(content: dict[str, Any]) -> str:
        path = home / "numbers.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


def test_a_run_whose_folders_are_numbers(home: Path) -> None:
    write_shards(Path("2024"))
    config = write_config(home / "c.yaml", Path("x"), run_dir=7, data__init_args__path=2024)
    words = ["fit", "--config", str(config), "--trainer.max_steps=1"]
    assert main(words) == 0
    assert main([*words, "--run_dir", "7", "--data.init_args.path", "2024"]) == 0
    assert Path("7/sae").is_dir()
    assert main(["fit", "--config", str(config), "--run_dir", "007", "--trainer.max_steps=1"]) == 0
    assert Path("007/sae").is_dir()


def test_an_extraction_whose_folders_are_numbers(written: Write) -> None:
    image = pytest.importorskip("PIL.Image")
    Path("2024").mkdir()
    image.new("RGB", (16, 16)).save("2024/a.png")
    data = {"folder": 2024, "size": 16, "mean": [0, 0, 0], "std": [1, 1, 1]}
    model = {"module": f"{STAND_INS}.TinyNet"}
    config = written({"model": model, "data": data, "layer": "tokens", "out": 7})
    assert main(["extract", "--config", config]) == 0
    assert Manifest.load("7").complete


def test_columns_whose_names_are_numbers(home: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DataOptions, "data")
    numbers = {"arrays": 1, "split": 2, "image_key": 3, "label_key": 4}
    options = parser.instantiate(parser.parse_object({"data": numbers})).data
    assert {name: getattr(options, name) for name in numbers} == {
        name: str(number) for name, number in numbers.items()
    }


def test_weights_and_encoders_whose_names_are_numbers(home: Path) -> None:
    for kind, names in ((ModelOptions, ("name", "weights")), (DigitsSource, ("encoders",))):
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(kind, "made")
        made = parser.instantiate(parser.parse_object({"made": dict.fromkeys(names, 7)})).made
        assert [getattr(made, name) for name in names] == ["7"] * len(names)


@pytest.mark.parametrize("value", [True, 1.5, [1]])
def test_what_is_no_name_is_told_by_its_key(
    value: Any, config: Path, home: Path, line: Ask
) -> None:
    settings = yaml.safe_load(config.read_text()) | {"run_dir": value}
    (home / "c.yaml").write_text(yaml.safe_dump(settings))
    status, text = line("fit", "--config", home / "c.yaml")
    assert status == 2
    assert "run_dir" in text
    nothing_here()


def test_the_demo_in_a_folder_whose_name_is_a_number(
    written: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        pass

    def run_steps(out: Path, seeds: int) -> None:
        raise Asked(out)

    monkeypatch.setattr("lightsae.demo.steps.run_steps", run_steps)
    with pytest.raises(Asked) as caught:
        main(["demo", "--config", written({"run_dir": 7})])
    assert caught.value.args == (Path("7"),)


def test_a_variable_that_is_not_set_is_told_in_python_too(home: Path) -> None:
    with pytest.raises(LightsaeError, match=r"\$NO_SUCH is not set"):
        ActivationDataModule("$NO_SUCH/shards")


@pytest.mark.parametrize("path", ["", "a\0b"], ids=["empty", "nul"])
@pytest.mark.parametrize(
    "words",
    [
        ("fit", "--config={config}", "--run_dir={path}"),
        ("fit", "--config={config}", "--data.init_args.path={path}"),
        ("fit", "--config={config}", "--ckpt_path={path}"),
        ("fit", "--config={config}", "--trainer.default_root_dir={path}"),
        ("shards", "info", "{path}"),
        ("shards", "shuffle", "{shards}", "--out={path}"),
        ("export", "{path}", "--out=x"),
        ("export", "x", "--out={path}"),
        ("demo", "--run_dir={path}"),
        ("extract", "--model.module=torch.nn.Identity", "--layer=x", "--out={path}"),
        ("extract", "--model.module=torch.nn.Identity", "--layer=x", "--out=x",
         "--data.folder={path}"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_path_that_is_none_is_refused(
    words: tuple[str, ...], path: str, config: Path, shards: Path, home: Path, line: Ask
) -> None:
    status, text = line(*(w.format(config=config, shards=shards, path=path) for w in words))
    assert status == 1
    assert repr(path) in text
    assert not any(found.is_file() for found in Path.cwd().rglob("*"))
