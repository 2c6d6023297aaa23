"""What a command or an import loads: torch takes seconds, Lightning and torchmetrics more."""

import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch

from lightsae.activations import Manifest, ShardWriter

HEAVY = {
    "PIL", "lightning", "lightsae_kernels", "matplotlib", "scipy", "sklearn", "timm", "torch",
    "torchmetrics", "torchvision", "transformers",
}  # fmt: skip
_COMMAND = """
import sys
from lightsae.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
"""
_REPORT = """
print("loaded:", *{name.partition(".")[0] for name in sys.modules})
"""


def loaded(code: str, words: Sequence[str] = ()) -> set[str]:
    """Packages in memory after a program ran."""
    command = [sys.executable, "-c", "import sys\n" + code + _REPORT, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].removeprefix("loaded:").split())


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder, Manifest(d_in=4, dtype="float16", has_labels=True)) as writer:
        writer.write(torch.randn(60, 4), range(60), label=[0, 1, 2] * 20)
    return str(folder)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["shards", "--help"],
        ["shards", "info", "--help"],
        ["shards", "verify", "--help"],
        ["shards", "info", "SHARDS"],
        ["shards", "info", "no such folder"],
        ["extract", "--help"],
        ["extract", "--no_such_option", "3"],
        ["demo", "--help"],
        ["steer", "--help"],
        ["effects", "--help"],
        ["plan", "--help"],
        ["fit", "--help"],
        ["predict", "-h"],
        ["export", "--help"],
        ["push", "--help"],
        ["no such command"],
    ],
    ids=" ".join,
)
def test_a_command_that_computes_nothing_loads_no_torch(words: list[str], shards: str) -> None:
    given = [shards if word == "SHARDS" else word for word in words]
    assert not loaded(_COMMAND, given) & HEAVY


def test_help_alone_loads_nothing_but_python() -> None:
    here = loaded(_COMMAND, ["--help"])
    assert not here & {"numpy", "h5py", "jsonargparse", "rich", "yaml"}


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["shards", "verify", "SHARDS"], {"torch"}),
        (["shards", "merge", "--help"], {"torch"}),
    ],
    ids=["verify", "merge"],
)
def test_a_command_loads_what_it_needs(words: list[str], allowed: set[str], shards: str) -> None:
    given = [shards if word == "SHARDS" else word for word in words]
    assert loaded(_COMMAND, given) & HEAVY <= allowed


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import lightsae, lightsae.activations, lightsae.report, lightsae.demo", set()),
        ("import lightsae.metrics", set()),
        ("from lightsae.activations import Manifest, ShardEntry, ShardSet", set()),
        ("from lightsae.activations import ModelOptions, DataOptions, extract", set()),
        ("from lightsae.activations import ShardWriter, LayerTap", {"torch"}),
        ("from lightsae.report import comparison_table, RunResult", set()),
        ("from lightsae.runs import quieten", set()),
        ("from lightsae.sae import SparseAutoencoder", {"torch", "lightsae_kernels"}),
    ],
)
def test_an_import_loads_what_the_name_needs(statement: str, allowed: set[str]) -> None:
    assert loaded(statement) & HEAVY <= allowed
