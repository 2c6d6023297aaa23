from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightsae.activations import DataOptions, ShardSet, extract
from lightsae.activations.extraction.images.preparation import Transform, preparation
from lightsae.activations.extraction.models import (
    LayerOutputs,
    LayerTap,
    ModelOptions,
    load_model,
)
from lightsae.errors import LightsaeError

tf = pytest.importorskip("transformers")

VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 50,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SQUARE = {"size": {"height": 32, "width": 32}}
CROP = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}


def _clip() -> Any:
    text = TEXT | {"max_position_embeddings": 16}
    return tf.CLIPModel(tf.CLIPConfig(vision_config=VISION, text_config=text, projection_dim=8))


def _siglip() -> Any:
    return tf.SiglipModel(tf.SiglipConfig(vision_config=VISION, text_config=TEXT))


def _dinov2() -> Any:
    return tf.Dinov2WithRegistersModel(
        tf.Dinov2WithRegistersConfig(**VISION, num_register_tokens=3)
    )


def _dinov3() -> Any:
    return tf.DINOv3ViTModel(tf.DINOv3ViTConfig(**VISION, num_register_tokens=4))


IMAGE_MODELS = [
    pytest.param(_clip, "CLIPImageProcessor", CROP, "encoder.layers.1", 1, id="CLIP"),
    pytest.param(_siglip, "SiglipImageProcessor", SQUARE, "encoder.layers.1", 0, id="SigLIP"),
    pytest.param(_dinov2, "BitImageProcessor", CROP, "encoder.layer.1", 4, id="DINOv2"),
    pytest.param(_dinov3, "DINOv3ViTImageProcessor", SQUARE, "model.layer.1", 5, id="DINOv3"),
]


@pytest.mark.parametrize(("make", "kind", "sizes", "layer", "prefix"), IMAGE_MODELS)
def test_models_of_images_by_name(
    tmp_path: Path,
    picture: Image.Image,
    make: Any,
    kind: str,
    sizes: dict[str, Any],
    layer: str,
    prefix: int,
) -> None:
    processor = getattr(tf, kind)(**sizes)
    source = make().eval()
    source.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    module = load_model(ModelOptions(name=str(tmp_path), library="transformers"))
    assert module.num_prefix_tokens == prefix

    images = processor(picture, return_tensors="pt")["pixel_values"]
    settings = preparation(DataOptions(folder="photos"), module)
    # It resizes tensors of bytes where timm resizes PIL images: a value may differ by one of 255.
    torch.testing.assert_close(Transform(settings)(picture), images[0], atol=0.02, rtol=0)

    with torch.no_grad():
        part = getattr(source, "vision_model", source)
        expected = part(images, output_hidden_states=True).hidden_states[-1]
    output = LayerTap(module, layer)(images)
    assert output.shape == (1, 16 + prefix, 16)
    torch.testing.assert_close(output, expected)


def test_the_weights_are_not_taken_unasked(tmp_path: Path) -> None:
    source = _clip()
    source.save_pretrained(tmp_path)
    path = str(tmp_path)
    same, other = (
        load_model(ModelOptions(name=path, library="transformers", pretrained=pretrained))
        for pretrained in (True, False)
    )
    weight = source.vision_model.embeddings.patch_embedding.weight
    assert torch.equal(same.embeddings.patch_embedding.weight, weight)  # type: ignore[union-attr,arg-type]
    assert not torch.equal(other.embeddings.patch_embedding.weight, weight)  # type: ignore[union-attr,arg-type]


def test_a_model_without_a_processor_wants_to_be_told(tmp_path: Path) -> None:
    _dinov2().save_pretrained(tmp_path)
    module = load_model(ModelOptions(name=str(tmp_path), library="transformers"))
    with pytest.raises(LightsaeError, match="Dinov2WithRegistersModel does not say how its images"):
        preparation(DataOptions(folder="photos"), module)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=f"model.name {tmp_path}: cannot be built: "):
        load_model(ModelOptions(name=str(tmp_path), library="transformers"))


NO_MEAN = '{"image_processor_type": "BitImageProcessor", "size": 3, "image_mean": 1}'


@pytest.mark.parametrize("written", ['{"size": ', "[]", NO_MEAN], ids=["cut", "list", "mean"])
def test_a_processor_that_cannot_be_read_is_named(tmp_path: Path, written: str) -> None:
    _dinov2().save_pretrained(tmp_path)
    tf.BitImageProcessor(**CROP).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(written)
    says = f"^{tmp_path}/preprocessor_config.json: cannot be read, expected what save_pretrained "
    with pytest.raises(LightsaeError, match=says):
        load_model(ModelOptions(name=str(tmp_path), library="transformers"))


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("name", ["m_nope", "./m_nope", "/nowhere/m_nope"])
def test_a_folder_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, pretrained: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    says = f"^model.name: there is no folder {name}, and the hub does not give it: OSError: "
    with pytest.raises(LightsaeError, match=says):
        load_model(ModelOptions(name=name, library="transformers", pretrained=pretrained))


@pytest.mark.parametrize(
    ("argument", "value", "option"),
    [("pretrained", False, "pretrained"), ("pretrained_model_name_or_path", "a", "name")],
)
@pytest.mark.parametrize("pretrained", [True, False])
def test_what_is_an_option_is_no_argument(
    tmp_path: Path, argument: str, value: object, option: str, pretrained: bool
) -> None:
    _dinov2().save_pretrained(tmp_path)
    options = ModelOptions(
        name=str(tmp_path),
        library="transformers",
        pretrained=pretrained,
        arguments={argument: value},
    )
    says = f"^model.arguments.{argument} is {value!r}: give --model.{option} instead$"
    with pytest.raises(LightsaeError, match=says):
        load_model(options)


def test_a_siglip2_of_any_resolution_is_told_from_one_of_a_fixed_one(tmp_path: Path) -> None:
    vision = {name: value for name, value in VISION.items() if name != "image_size"}
    config = tf.Siglip2VisionConfig(**vision, intermediate_size=16, num_patches=16)
    tf.Siglip2VisionModel(config).save_pretrained(tmp_path)
    says = f"^model.name {tmp_path}: is a SigLIP2 of any resolution .NaFlex., expected one of a fix"
    with pytest.raises(LightsaeError, match=says):
        load_model(ModelOptions(name=str(tmp_path), library="transformers"))


def test_a_masked_autoencoder_sees_every_patch_in_its_place(tmp_path: Path) -> None:
    source = tf.ViTMAEModel(tf.ViTMAEConfig(**VISION, intermediate_size=32)).eval()
    source.save_pretrained(tmp_path)
    module = load_model(ModelOptions(name=str(tmp_path), library="transformers"))
    assert module.num_prefix_tokens == 1

    images = torch.rand(2, 3, 32, 32)
    tap = LayerTap(module, ["embeddings", "layers.1"])
    embedded, output = LayerOutputs(tap)(images)
    patches = source.embeddings.patch_embeddings(images)
    expected = patches + source.embeddings.position_embeddings[:, 1:]
    torch.testing.assert_close(embedded[:, 1:], expected.detach())
    source.config.mask_ratio = 0.0
    with torch.no_grad():
        states = source(images, noise=torch.arange(16).expand(2, 16), output_hidden_states=True)
    torch.testing.assert_close(output, states.hidden_states[-1])

    torch.manual_seed(1)
    assert torch.equal(LayerOutputs(tap)(images)[1], output)


def test_a_masked_autoencoder_is_not_to_mask(tmp_path: Path) -> None:
    tf.ViTMAEModel(tf.ViTMAEConfig(**VISION, intermediate_size=32)).save_pretrained(tmp_path)
    options = ModelOptions(
        name=str(tmp_path), library="transformers", arguments={"mask_ratio": 0.5}
    )
    says = "^model.arguments.mask_ratio is 0.5: patches would be left out at random, expected 0$"
    with pytest.raises(LightsaeError, match=says):
        load_model(options)


def test_a_model_that_masks_at_random_is_refused(tmp_path: Path) -> None:
    config = tf.ViTMAEConfig(**VISION, intermediate_size=32)
    tap = LayerTap(tf.ViTMAEModel(config).eval(), "layers.1")
    with pytest.raises(LightsaeError, match=r"^model: ViTMAEModel is random: layer 'layers.1' gi"):
        LayerOutputs(tap)(torch.rand(2, 3, 32, 32))


class Sounds(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Spectrograms of 12 sounds."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"input_features": torch.randn(8, 40, generator=torch.Generator().manual_seed(i))}


class Sentences(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """12 sentences of 1 to 6 words, filled up to 6, and the number of words as a label."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> tuple[dict[str, Tensor], int]:
        words = i % 6 + 1
        mask = (torch.arange(6) < words).long()
        return {"input_ids": torch.arange(3, 9) * mask, "attention_mask": mask}, words


def _extracted(tmp_path: Path, dataset: str, layer: str, **options: Any) -> list[np.ndarray]:
    """Index and rows, by sample and token."""
    extract(
        ModelOptions(name=str(tmp_path / "model"), library="transformers"),
        DataOptions(dataset=f"{__name__}.{dataset}"),
        layer=layer,
        out=str(tmp_path / "out"),
        dtype="float32",
        batch_size=5,
        **options,
    )
    shards = ShardSet(tmp_path / "out")
    chunks = range(len(shards.chunks))
    index = np.concatenate([shards.read_index(chunk) for chunk in chunks], axis=1)
    rows = np.concatenate(shards.read_activations(chunks))
    shards.close()
    order = np.lexsort(index[1::-1])
    return [index[:, order], rows[order]]


def test_sound_by_the_encoder_of_whisper(tmp_path: Path) -> None:
    config = tf.WhisperConfig(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32, num_mel_bins=8,
        max_source_positions=20, max_target_positions=8, vocab_size=50, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    source = tf.WhisperModel(config).eval()
    source.save_pretrained(tmp_path / "model")
    index, rows = _extracted(tmp_path, "Sounds", "encoder.layers.1", tokens="all")
    assert index[0].tolist() == [sample for sample in range(12) for _ in range(20)]
    assert index[1].tolist() == list(range(20)) * 12
    with torch.no_grad():
        sound = Sounds()[7]["input_features"][None]
        states = source.encoder(sound, output_hidden_states=True).hidden_states
    final = source.encoder.layer_norm(torch.from_numpy(rows[140:160]))
    torch.testing.assert_close(final, states[-1][0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokens", ["all", "pooled"])
def test_text_by_a_causal_model_without_its_padding(tmp_path: Path, tokens: Any) -> None:
    source = tf.LlamaModel(tf.LlamaConfig(**TEXT, num_key_value_heads=2)).eval()
    source.save_pretrained(tmp_path / "model")
    layer = "layers.0"
    options = {"tokens": tokens}
    index, rows = _extracted(tmp_path, "Sentences", layer, **options)
    words = [i % 6 + 1 for i in range(12)]
    given = [list(range(count)) if tokens == "all" else [0] for count in words]
    assert index[0].tolist() == [i for i, places in enumerate(given) for _ in places]
    assert index[1].tolist() == [place for places in given for place in places]
    assert index[2].tolist() == [words[i] for i in index[0]]
    for sample in (3, 10):
        ids = torch.arange(3, 3 + words[sample])[None]
        with torch.no_grad():
            expected = source(ids, output_hidden_states=True).hidden_states[1][0]
        if tokens == "pooled":
            expected = expected.mean(0, keepdim=True)
        found = torch.from_numpy(rows[index[0] == sample])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
