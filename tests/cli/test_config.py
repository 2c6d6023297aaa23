"""A configuration that cannot be: one line that names the key."""

from pathlib import Path
from typing import Any

import pytest

from lightsae.cli import main
from lightsae.cli.config_files import require_unambiguous
from lightsae.sae import SparseAutoencoder

from ..training.helpers import write_config
from .helpers import Ask

MODEL = "model__init_args__"
DATA = "data__init_args__"
STOP_AT_NOTHING = [{"class_path": "EarlyStopping", "init_args": {"monitor": "val/lss"}}]
TWO_LAST = [{"class_path": "ModelCheckpoint", "init_args": {"save_last": True}}]
NAMED_LAST = [{"class_path": "ModelCheckpoint", "init_args": {"filename": "last"}}]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({f"{MODEL}dsae": 3}, ["SAEModule", "'dsae' is not accepted"]),
        ({"checkpoint_every": 0}, ["checkpoint_every", "0"]),
        ({f"{MODEL}d_sae": "many"}, ['"d_sae"', "Expected a int", "many"]),
        ({f"{MODEL}selection": {"class_path": "lightsae.sae.TopKK"}}, ["selection", "TopKK"]),
        ({f"{MODEL}selection__class_path": "no_such.TopK"}, ["selection", "no_such"]),
        ({f"{MODEL}optimizer__class_path": "torch.optim.Adamm"}, ["optimizer", "Adamm"]),
        ({f"{MODEL}aux_k__k_auxx": 3}, ["aux_k", "k_auxx"]),
        ({"model__class_path": "lightsae.training.SAE"}, ["lightsae.training", "SAE"]),
        ({f"{DATA}bath_size": 3}, ["ActivationDataModule", "'bath_size' is not accepted"]),
        ({"trainer__precision": 17}, ["trainer.precision", "bf16-mixed"]),
        ({"trainer__max_epoch": 17}, ["trainer", "max_epoch"]),
        ({"trainre": 1}, ["trainre"]),
        ({"checkpoint_every": "often"}, ["checkpoint_every", "often"]),
        ({"seed_everything": -1}, ["seed_everything", ">=0 and v<4294967296"]),
        ({"seed_everything": 2**32}, ["seed_everything", ">=0 and v<4294967296"]),
    ],
    ids=lambda value: ".".join(next(iter(value)).split("__")) if isinstance(value, dict) else "",
)
def test_a_config_that_does_not_fit_is_told_by_key_in_one_line(
    changes: dict[str, Any],
    says: list[str],
    shards: Path,
    tmp_path: Path,
    line: Ask,
) -> None:
    config = write_config(tmp_path / "config.yaml", shards, **changes)
    status, text = line("fit", "--config", config, "--run_dir", tmp_path / "run")
    assert status == 2
    assert text.startswith("lightsae fit: error: ")
    assert all(part in text for part in says), text
    assert "NoneType" not in text
    assert len(text) < 500
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({f"{MODEL}selection__init_args__k": 500}, "k = 500 is larger than d_sae = 24"),
        ({f"{MODEL}selection__init_args__k": 0}, "k must be an integer of at least 1, got 0"),
        ({f"{MODEL}regularizer__init_args__weight": -1}, "weight must be at least 0"),
        ({f"{MODEL}aux_k__dead_after": 0}, "dead_after must be at least 1, got 0"),
        ({f"{MODEL}optimizer__init_args__lr": -1}, "optimizer cannot be made: Invalid learning"),
        ({f"{MODEL}d_sae": 0}, "d_sae must be at least 1, got 0"),
        ({f"{MODEL}init_rows": 0}, "init_rows must be at least 1, got 0"),
        ({f"{MODEL}d_in": 7}, "the model has d_in = 7, the activations in"),
        ({f"{DATA}path": "/no/such"}, "/no/such: no such folder of activation shards"),
        ({f"{DATA}batch_size": 0}, "batch_size is 0"),
        ({f"{DATA}val_fraction": 1.5}, "val_fraction is 1.5"),
        ({"trainer__accelerator": "tpu"}, "torch_xla"),
        ({"trainer__max_epochs": -7}, "`max_epochs` must be"),
        ({"trainer__strategy": "sideways"}, "sideways"),
        ({"trainer__limit_train_batches": -3}, "-3"),
        (
            {"trainer__val_check_interval": 11},
            "`val_check_interval` (11) must be less",
        ),
        ({"trainer__callbacks": STOP_AT_NOTHING}, "metric `val/lss` which is not available"),
        ({"trainer__callbacks": STOP_AT_NOTHING}, "`val/loss`"),
        ({"trainer__callbacks": TWO_LAST}, "ModelCheckpoint: "),
        ({"trainer__callbacks": NAMED_LAST}, "ModelCheckpoint: "),
    ],
    ids=lambda value: ".".join(next(iter(value)).split("__")) if isinstance(value, dict) else "",
)
def test_a_value_that_cannot_be_is_told_in_one_line(
    changes: dict[str, Any],
    says: str,
    shards: Path,
    tmp_path: Path,
    line: Ask,
) -> None:
    config = write_config(tmp_path / "config.yaml", shards, **changes)
    status, text = line("fit", "--config", config, "--run_dir", tmp_path / "run")
    assert status == 1
    assert text.startswith("lightsae fit: error: ")
    assert says in text


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (None, 2, "File does not exist"),
        ("model: [open", 2, "Problems parsing config"),
        (b"\xff\xfe\x00", 2, "is not text"),
        ("", 2, "Unexpected config"),
        ("just words", 2, "config"),
    ],
    ids=["missing", "broken", "binary", "empty", "no mapping"],
)
def test_a_config_that_cannot_be_read_is_told_in_one_line(
    content: str | bytes | None,
    status: int,
    says: str,
    tmp_path: Path,
    line: Ask,
) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    found, text = line("fit", "--config", path)
    assert found == status
    assert says in text


@pytest.mark.parametrize("word", ["fit", "test", "predict"])
def test_without_a_config_it_says_what_it_needs(word: str, line: Ask) -> None:
    status, text = line(word)
    assert status == 2
    assert f"{word}.model" in text


TWICE = {
    "at the top": ("seed_everything: 1\ntrainer: {}\nseed_everything: 2\n", 3, "seed_everything"),
    "below": ("trainer:\n  max_epochs: 1\n  devices: 1\n  max_epochs: 2\n", 4, "max_epochs"),
    "in a list": ("trainer:\n  callbacks:\n    - class_path: A\n      class_path: B\n", 4,
                  "class_path"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "number", "key"), TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("word", ["fit", "test", "extract", "demo"])
@pytest.mark.parametrize("equals", [True, False], ids=["=", "space"])
def test_a_key_that_is_given_twice_is_refused(
    equals: bool, word: str, content: str, number: int, key: str, tmp_path: Path, line: Ask
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(content)
    words = [f"--config={config}"] if equals else ["--config", config]
    status, text = line(word, *words)
    assert status == 2
    assert f"{config}: line {number}: {key} is given twice" in text


def test_two_configs_may_give_the_same_key(shards: Path, tmp_path: Path) -> None:
    first = write_config(tmp_path / "a.yaml", shards)
    second = tmp_path / "b.yaml"
    second.write_text("model: {init_args: {d_sae: 12}}\ntrainer: {max_steps: 1}\n")
    words = ["--config", str(first), "--config", str(second), "--run_dir", str(tmp_path / "run")]
    assert main(["fit", *words]) == 0
    assert SparseAutoencoder.load(tmp_path / "run" / "sae").d_sae == 12


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model__foo": 1}, 'Parser key "model": foo stands beside class_path, expected in'),
        ({"trainer__callbacks": [{"class_path": "Timer", "duration": 1}]}, "duration stands"),
        ({"trainer__callbacks": [{"class_path": "EarlyStoping"}]}, "EarlyStoping"),
        (
            {"trainer__callbacks": [{"class_path": "Timer", "init_args": {"durat": 1}}]},
            "Option 'durat' is not accepted",
        ),
    ],
    ids=["beside class_path", "beside that of a callback", "no such callback", "no such option"],
)
def test_a_class_that_does_not_fit_is_told_by_what_is_wrong(
    changes: dict[str, Any], says: str, shards: Path, tmp_path: Path, line: Ask
) -> None:
    config = write_config(tmp_path / "config.yaml", shards, **changes)
    status, text = line("fit", "--config", config, "--run_dir", tmp_path / "run")
    assert status == 2
    assert says in text
    assert "Subclass types expect" not in text
    assert len(text) < 300


MISREAD = {
    "zeros of a name": ("run_dir: 007\n", 1, "run_dir: 007 would be read as 7: put it in quotes"),
    "in a list of names": ("layer:\n  - blocks.1\n  - 010\n", 3, "layer: 010 would be read as 8"),
    "underscores of a name": ("run_dir: 2026_1\n", 1, "run_dir: 2026_1 would be read as 20261"),
    "a fraction": ("model: {layer: 1.10}\n", 1, "layer: 1.10 would be read as 1.1"),
    "octal": ("data:\n  seed: 010\n", 2, "seed: 010 would be read as 8"),
    "of base 60": (
        "trainer:\n  max_time: 1:12:00:00\n",
        2,
        "max_time: 1:12:00:00 would be read as",
    ),
}


@pytest.mark.parametrize(("content", "number", "what"), MISREAD.values(), ids=MISREAD)
@pytest.mark.parametrize("word", ["fit", "extract"])
def test_a_number_that_yaml_reads_as_another_is_refused(
    word: str, content: str, number: int, what: str, tmp_path: Path, line: Ask
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(content)
    status, text = line(word, "--config", config)
    assert status == 2
    assert f"{config}: line {number}: {what}" in text


def test_numbers_that_are_numbers_stay(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("run_dir: '007'\nlayer: 0\nmax_steps: 10_000\nlr: 1.0e-3\nmax_time: 00:01\n")
    require_unambiguous(["fit", "--config", str(config)])


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_spawn_find_unused_parameters_true"])
def test_processes_that_are_spawned_are_refused(
    strategy: str, config: Path, tmp_path: Path, line: Ask
) -> None:
    words = ["--trainer.strategy", strategy, "--trainer.devices", 2]
    status, text = line("fit", "--config", config, "--run_dir", tmp_path / "run", *words)
    assert status == 1
    assert f"trainer.strategy is '{strategy}', which hands a copy of the trainer to each" in text
    assert not (tmp_path / "run").exists()
