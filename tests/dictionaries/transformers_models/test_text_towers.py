"""Concepts embedded by small random models of the classes that users have."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.activations.extraction.models import ModelOptions
from lightsae.dictionaries.naming.concept_vocabulary import concept_vocabulary, pulled_back
from lightsae.dictionaries.naming.text_towers import load_text_tower
from lightsae.errors import LightsaeError
from lightsae.interventions.examples.dated_world.training import word_tokenizer

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

SMALL = {
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {
        "context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1,
    },
    "embed_dim": 12,
}  # fmt: skip
PARTS = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
VISION = PARTS | {"image_size": 32, "patch_size": 8}
WORDS = ["a", "photo", "of", "cat.", "dog."]
CONCEPTS = ["cat", "dog"]


def _clip_options() -> ModelOptions:
    return ModelOptions(name="ViT-B-32", library="open_clip", pretrained=False, arguments=SMALL)


def _saved(folder: Path, kind: str) -> ModelOptions:
    tokenizer = word_tokenizer(WORDS)
    text = PARTS | {
        "vocab_size": len(tokenizer), "max_position_embeddings": 12, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    model: Any
    if kind == "CLIP":
        config = transformers.CLIPConfig(vision_config=VISION, text_config=text, projection_dim=8)
        model = transformers.CLIPModel(config)
    else:
        model = transformers.SiglipModel(
            transformers.SiglipConfig(vision_config=VISION, text_config=text)
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelOptions(name=str(folder), library="transformers")


def test_open_clip_embeds_concepts_in_the_joint_space() -> None:
    tower = load_text_tower(_clip_options())
    found = concept_vocabulary(CONCEPTS, tower)
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None, load_weights=False, **SMALL).eval()
    tokens = open_clip.get_tokenizer("ViT-B-32", context_length=16)(
        ["a photo of a cat.", "a photo of a dog."]
    )
    with torch.no_grad():
        expected = model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(found.vectors, expected)


def test_open_clip_vectors_are_pulled_back_through_norm_and_projection() -> None:
    tower = load_text_tower(_clip_options())
    assert tower.projection is not None and tower.projection.shape == (12, 32)
    found = concept_vocabulary(CONCEPTS, tower, space="norm_input")
    assert found.vectors.shape == (2, 32)
    joint = concept_vocabulary(CONCEPTS, tower).vectors
    torch.testing.assert_close(found.vectors, pulled_back(joint, tower.projection, tower.norm))


def test_the_projection_is_that_of_images() -> None:
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None, load_weights=False, **SMALL).eval()
    tower = load_text_tower(_clip_options())
    seen: list[torch.Tensor] = []
    model.visual.ln_post.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        images = model.encode_image(torch.rand(2, 3, 32, 32))
    behind_norm = seen[0][:, 0] if seen[0].ndim == 3 else seen[0]
    assert tower.projection is not None
    torch.testing.assert_close(behind_norm @ tower.projection.T, images)


@pytest.mark.parametrize("kind", ["CLIP", "SigLIP"])
def test_transformers_embed_concepts_as_the_model_does(tmp_path: Path, kind: str) -> None:
    options = _saved(tmp_path, kind)
    found = concept_vocabulary(CONCEPTS, load_text_tower(options))
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text, vector in zip(["a photo of a cat.", "a photo of a dog."], found.vectors, strict=True):
        full = {"padding": "max_length", "max_length": 12} if kind == "SigLIP" else {}
        tokens = tokenizer(text, return_tensors="pt", **full)["input_ids"]
        with torch.no_grad():
            expected = model.get_text_features(input_ids=tokens).pooler_output[0]
        torch.testing.assert_close(vector, expected / expected.norm(), atol=1e-5, rtol=1e-4)


def test_clip_of_transformers_has_a_projection_and_siglip_none(tmp_path: Path) -> None:
    clip = load_text_tower(_saved(tmp_path / "clip", "CLIP"))
    model = transformers.AutoModel.from_pretrained(tmp_path / "clip")
    assert clip.projection is not None and clip.norm is not None
    assert torch.equal(clip.projection, model.visual_projection.weight)
    assert concept_vocabulary(CONCEPTS, clip, space="projection_input").vectors.shape == (2, 16)
    siglip = load_text_tower(_saved(tmp_path / "siglip", "SigLIP"))
    with pytest.raises(LightsaeError, match="only its joint space has directions of text"):
        concept_vocabulary(CONCEPTS, siglip, space="norm_input")


def test_a_model_of_images_alone_has_no_text_part(tmp_path: Path) -> None:
    transformers.ViTModel(transformers.ViTConfig(**VISION)).save_pretrained(tmp_path)
    word_tokenizer(WORDS).save_pretrained(tmp_path)
    with pytest.raises(LightsaeError, match="ViTModel has no text part, expected CLIP or SigLIP"):
        load_text_tower(ModelOptions(name=str(tmp_path), library="transformers"))


def test_a_model_without_the_files_of_its_tokenizer_is_told(tmp_path: Path) -> None:
    options = _saved(tmp_path, "CLIP")
    for path in tmp_path.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(LightsaeError, match=r"tokenizer cannot be loaded|tokenizer's files there"):
        concept_vocabulary(CONCEPTS, load_text_tower(options))
