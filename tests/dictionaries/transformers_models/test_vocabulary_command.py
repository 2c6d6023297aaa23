"""`lightsae vocabulary` with models of both libraries, and names by what it wrote."""

import json
from pathlib import Path

import pytest
import torch

from lightsae.cli import main
from lightsae.dictionaries import Vocabulary, name_latents

from .test_text_towers import SMALL, _saved
from .test_token_vocabulary import WORDS, _model, word_tokenizer

pytest.importorskip("open_clip")


def test_tokens_by_name(tmp_path: Path) -> None:
    model = _model()
    model.save_pretrained(tmp_path / "model")
    word_tokenizer(WORDS).save_pretrained(tmp_path / "model")
    words = ["vocabulary", "--model.library", "transformers", "--model.name", tmp_path / "model",
             "--tokens", "output", "--out", tmp_path / "tokens.safetensors"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    found = Vocabulary.load(tmp_path / "tokens.safetensors")
    assert found.names[-3:] == WORDS
    rows = model.lm_head.weight.detach()[3:6]
    assert name_latents(2 * rows, found).names == WORDS


@pytest.mark.parametrize("library", ["open_clip", "transformers"])
def test_concepts_before_the_projection(tmp_path: Path, library: str) -> None:
    (tmp_path / "concepts.txt").write_text("cat\ndog\n")
    if library == "open_clip":
        model = ["--model.name", "ViT-B-32", "--model.pretrained", "false",
                 "--model.arguments", json.dumps(SMALL)]  # fmt: skip
    else:
        model = ["--model.name", str(_saved(tmp_path / "clip", "CLIP").name)]
    out = tmp_path / "words.safetensors"
    words = ["vocabulary", "--model.library", library, *model, "--space", "projection_input",
             "--concepts", str(tmp_path / "concepts.txt"), "--out", str(out)]  # fmt: skip
    assert main(words) == 0
    found = Vocabulary.load(out)
    assert found.names == ["cat", "dog"] and found.about["space"] == "projection_input"
    assert found.vectors.shape == (2, 32 if library == "open_clip" else 16)
    assert torch.isfinite(found.vectors).all()
