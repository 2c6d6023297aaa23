"""`lightsae vocabulary`: its options, and the file of a stand-in for a model of images and text."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightsae.activations.extraction.models import ModelOptions
from lightsae.cli import main
from lightsae.dictionaries import TextTower, Vocabulary, concept_vocabulary

Ask = Callable[..., str]
CONFIG = Path(__file__).parents[3] / "configs" / "naming" / "vocabulary-clip-vit-l.yaml"


def embed(texts: Sequence[str]) -> Tensor:
    return torch.stack([torch.tensor([len(text), text.count("a"), 1.0]) for text in texts])


@pytest.fixture
def tower(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ModelOptions, str]]:
    """A tower of random texts in place of a model; what it was asked for."""
    asked: list[tuple[ModelOptions, str]] = []

    def load(options: ModelOptions, device: str) -> TextTower:
        asked.append((options, device))
        return TextTower(embed)

    monkeypatch.setattr("lightsae.dictionaries.load_text_tower", load)
    return asked


@pytest.fixture
def error(capfd: pytest.CaptureFixture[str]) -> Ask:
    def ask(*words: object, status: int = 1) -> str:
        assert main(["vocabulary", *map(str, words)]) == status
        return capfd.readouterr().err.strip().splitlines()[-1]

    return ask


def test_concepts_of_a_file_become_a_vocabulary(
    tmp_path: Path, tower: list[tuple[ModelOptions, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "concepts.txt").write_text("cat\tanimal\nhot dog\n")
    config = tmp_path / "vocabulary.yaml"
    config.write_text(
        "model: {name: ViT-B-32, library: open_clip, pretrained: false}\n"
        f"concepts: {tmp_path}/concepts.txt\n"
        "templates: ['a photo of a {}.', 'a drawing of a {}.']\nsubtract_mean: true\n"
    )
    out = tmp_path / "made" / "words.safetensors"
    words = ["vocabulary", "--config", str(config), "--out", str(out), "--device", "cpu"]
    assert main(words) == 0
    found = Vocabulary.load(out)
    templates = ["a photo of a {}.", "a drawing of a {}."]
    expected = concept_vocabulary(
        ["cat", "hot dog"], TextTower(embed), templates, subtract_mean=True
    )
    assert found.names == ["cat", "hot dog"] and torch.equal(found.vectors, expected.vectors)
    assert found.about == {
        "templates": templates, "space": "joint", "subtract_mean": True,
        "model": "open_clip:ViT-B-32",
    }  # fmt: skip
    assert [(options.name, device) for options, device in tower] == [("ViT-B-32", "cpu")]
    assert "words.safetensors: 2 words in 3 dimensions" in capfd.readouterr().err


def test_the_configuration_for_clip_makes_a_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    projection, asked = torch.randn(3, 5), []

    def load(options: ModelOptions, device: str) -> TextTower:
        asked.append(options)
        return TextTower(embed, projection, torch.nn.LayerNorm(5))

    monkeypatch.setattr("lightsae.dictionaries.load_text_tower", load)
    (tmp_path / "concepts.txt").write_text("cat\nhot dog\nelm\n")
    words = ["--concepts", tmp_path / "concepts.txt", "--out", tmp_path / "v.safetensors"]
    assert main(["vocabulary", "--config", str(CONFIG), *map(str, words)]) == 0
    assert asked[0].arguments == {"pretrained": "openai"}
    assert Vocabulary.load(tmp_path / "v.safetensors").vectors.shape == (3, 5)


def test_options_that_do_not_go_together_are_told(tmp_path: Path, error: Ask) -> None:
    out = ["--out", tmp_path / "v.safetensors"]
    assert "give either --concepts FILE or --tokens" in error(*out, status=2)
    both = ["--concepts", "a.txt", "--tokens", "input"]
    assert "give either --concepts FILE or --tokens" in error(*both, *out, status=2)
    assert "a.txt cannot be read" in error("--concepts", "a.txt", *out)
    assert "expected the name of a causal language model" in error("--tokens", "input", *out)


def test_a_template_without_a_place_is_told(
    tmp_path: Path, tower: list[tuple[ModelOptions, str]], error: Ask
) -> None:
    (tmp_path / "concepts.txt").write_text("cat\n")
    words = ["--concepts", tmp_path / "concepts.txt", "--out", tmp_path / "v.safetensors"]
    assert "'a photo' has not one {}" in error(*words, "--templates", "['a photo']")
    assert not (tmp_path / "v.safetensors").exists() and tower
