"""`lightsae name` over a run folder."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightsae.cli import main
from lightsae.dictionaries import LatentNames, Vocabulary
from lightsae.evaluation import EvaluationResult
from lightsae.sae import SparseAutoencoder

from ...report.helpers import write_run, write_shards

CLASSES = ["cat", "dog", "elm"]
Ask = Callable[..., str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("named")
    shards = write_shards(folder / "shards", None, 400, CLASSES)
    run = write_run(folder / "run", shards, d_sae=24, k=3)
    sae = SparseAutoencoder.load(run / "sae")
    rows = sae.W_dec.detach()[:6] * 3
    names = [f"word {row}" for row in range(5)] + ["[red]odd\x1b[0m"]
    Vocabulary(names, rows, {"model": "tiny"}).save(folder / "words.safetensors")
    return SimpleNamespace(
        folder=folder, run=run, sae=sae, words=folder / "words.safetensors", shards=shards
    )


@pytest.fixture
def error(capfd: pytest.CaptureFixture[str]) -> Ask:
    """The one line that a command ends with."""

    def ask(*words: object, status: int = 1) -> str:
        assert main(["name", *map(str, words)]) == status
        return capfd.readouterr().err.strip().splitlines()[-1]

    return ask


def test_a_vocabulary_of_decoder_rows_names_their_latents(
    made: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["name", str(made.run), "--vocabulary", str(made.words)]) == 0
    printed = capfd.readouterr().out
    found = LatentNames.load(made.run)
    firings = EvaluationResult.load(made.run).latents["firings"]
    assert torch.equal(found.alive, firings > 0)
    expected = [f"word {row}" for row in range(5)] + ["[red]odd\x1b[0m"]
    for latent in range(6):
        assert found.nearest[latent] == expected[latent]
        assert found.names[latent] == (expected[latent] if firings[latent] else None)
    assert found.about["model"] == "tiny" and len(found.about["autoencoder"]) == 16
    assert found.candidates.shape == (24, 5) and found.cutoff == 0.8
    assert "alignment rate" in printed and "\x1b" not in printed and "[red]odd\\x1b[0m" in printed


def test_without_an_evaluation_all_latents_count(made: SimpleNamespace, tmp_path: Path) -> None:
    made.sae.save(tmp_path / "sae")
    words = ["name", str(tmp_path), "--vocabulary", str(made.words), "--cutoff", "-0.9"]
    assert main([*words, "--candidates", "1", "--show", "0"]) == 0
    found = LatentNames.load(tmp_path)
    assert found.alive.all() and found.cutoff == -0.9 and found.candidates.shape == (24, 1)


def test_classes_name_the_latents_that_fire_on_them(made: SimpleNamespace) -> None:
    words = ["name", str(made.run), "--labels", "--cutoff", "0.3", "--min_firings", "5"]
    assert main(words) == 0
    found = LatentNames.load(made.run)
    assert found.words == CLASSES and found.measure == "purity"
    result = EvaluationResult.load(made.run)
    assert torch.equal(found.alive, result.latents["firings"] > 0)
    assert found.about["rows"] == result.about["rows"] and found.about["split"] == "test"
    purest = int(found.similarity.nan_to_num(-1).argmax())
    assert found.words[found.index[purest]] == CLASSES[int(result.latents["main_class"][purest])]
    assert any(found.names)


def test_what_is_wrong_is_told_in_one_line(
    made: SimpleNamespace, error: Ask, tmp_path: Path
) -> None:
    assert "give either --vocabulary FILE or --labels" in error(made.run, status=2)
    both = error(made.run, "--labels", "--vocabulary", made.words, status=2)
    assert "give either --vocabulary FILE or --labels" in both
    assert "sae.json" in error(tmp_path, "--vocabulary", made.words)
    assert "evaluation.json cannot be read" in error(tmp_path, "--labels")
    assert "cutoff is 2.0" in error(made.run, "--vocabulary", made.words, "--cutoff", "2")
    assert "floor is 2.0" in error(made.run, "--labels", "--cutoff", "2")
    Vocabulary(["a"], torch.ones(1, 3)).save(tmp_path / "narrow.safetensors")
    told = error(made.run, "--vocabulary", tmp_path / "narrow.safetensors")
    assert "narrow.safetensors has directions of width 3, the decoder rows of" in told


def test_shards_that_are_gone_or_without_labels_are_told(
    made: SimpleNamespace, error: Ask, tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "shards", None, 60, CLASSES)
    run = write_run(tmp_path / "run", shards, d_sae=24, k=3)
    manifest = json.loads((shards / "manifest.json").read_text())
    (shards / "manifest.json").unlink()
    assert "manifest" in error(run, "--labels")
    assert manifest["has_labels"]
