"""Models of open_clip and transformers as what monosemanticity is measured in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightsae.activations import ActivationDataModule, DataOptions, ModelOptions, extract
from lightsae.evaluation import EmbeddingOptions, evaluate
from lightsae.sae import SparseAutoencoder, TopK

SIDE, PHOTOS = 32, 10
VISION = {"num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8, "image_size": SIDE}
OPEN_CLIP = {
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    "embed_dim": 12,
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def open_clip() -> Any:
    return pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that no model has to resize."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(PHOTOS):
        pixels = random.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def data(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> ActivationDataModule:
    shards = tmp_path_factory.mktemp("shards") / "x"
    model = ModelOptions(name="test_vit2", pretrained=False, arguments={"img_size": SIDE})
    images = DataOptions(folder=str(photos), size=SIDE)
    extract(model, images, layer="norm", tokens="pooled", out=str(shards), dtype="float32")
    found = ActivationDataModule(str(shards), val_fraction=0, test_fraction=0.9)
    found.setup()
    return found


def require_scores_in(
    expected: Tensor, model: ModelOptions, data: ActivationDataModule, cache: Path
) -> None:
    """Scores are those in vectors [photos, d_e] that were computed without the package."""
    torch.manual_seed(0)
    sae = SparseAutoencoder(data.d_in, 8, TopK(2))
    sae.initialize_(torch.cat([batch.activations for batch in data.split_dataloader("test")]))
    embeddings = {"other": EmbeddingOptions(model=model), "expected": expected}
    result = evaluate(sae, data, embeddings, cache=cache, show_progress=False)
    assert result.about["embeddings"][0]["d_e"] == expected.shape[1]
    scores, wanted = (result.latents[f"ms/{name}"] for name in embeddings)
    assert not wanted.isnan().all()
    torch.testing.assert_close(scores, wanted, rtol=1e-3, atol=1e-5, equal_nan=True)


def pixels(photos: Path, mean: Any, std: Any) -> Tensor:
    images = [np.asarray(Image.open(photos / f"{number}.png")) for number in range(PHOTOS)]
    scaled = (np.stack(images) / 255 - np.asarray(mean)) / np.asarray(std)
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).float()


def test_a_model_of_transformers_gives_its_pooled_output(
    transformers: Any, photos: Path, data: ActivationDataModule, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    config = transformers.CLIPVisionConfig(**VISION, hidden_size=16, intermediate_size=32)
    source = transformers.CLIPVisionModel(config)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    for part in (source.eval(), processor):
        part.save_pretrained(tmp_path / "clip")
    with torch.no_grad():
        found = source(pixels(photos, processor.image_mean, processor.image_std))
    model = ModelOptions(name=str(tmp_path / "clip"), library="transformers")
    require_scores_in(found.pooler_output, model, data, tmp_path)


def test_a_model_of_open_clip_gives_its_projected_embedding(
    open_clip: Any, photos: Path, data: ActivationDataModule, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    source = open_clip.create_model("ViT-B-32", pretrained=None, **OPEN_CLIP).eval()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    with torch.no_grad():
        images = pixels(photos, source.visual.image_mean, source.visual.image_std)
        found = source.encode_image(images)
    weights = str(tmp_path / "w.pt")
    model = ModelOptions(name="ViT-B-32", library="open_clip", weights=weights, arguments=OPEN_CLIP)
    require_scores_in(found, model, data, tmp_path / "cache")
