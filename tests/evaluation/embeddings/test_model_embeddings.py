"""Embeddings by a model that runs over the images of the autoencoder's shards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightsae.activations import ActivationDataModule, DataOptions, ModelOptions, extract
from lightsae.activations.extraction.images.image_set import load_images
from lightsae.activations.extraction.models import load_model
from lightsae.errors import LightsaeError
from lightsae.evaluation import EmbeddingOptions
from lightsae.evaluation.embeddings import open_embeddings
from lightsae.evaluation.split_images import SplitImages

torch.set_num_threads(1)
OTHER = ModelOptions(name="test_vit", pretrained=False, arguments={"img_size": 32})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(12):
        place = folder / f"class{number % 2}"
        place.mkdir(exist_ok=True)
        pixels = random.integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def data(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> ActivationDataModule:
    shards = tmp_path_factory.mktemp("shards") / "x"
    extract(
        ModelOptions(name="test_vit2", pretrained=False, arguments={"img_size": 32}),
        DataOptions(folder=str(photos), size=32),
        layer="norm",
        tokens="pooled",
        out=str(shards),
        dtype="float32",
    )
    found = ActivationDataModule(str(shards), val_fraction=0.1, test_fraction=0.5)
    found.setup()
    return found


@pytest.fixture(scope="module")
def images(data: ActivationDataModule) -> SplitImages:
    return SplitImages.of(data, "test")


def expected(photos: Path, images: SplitImages) -> torch.Tensor:
    """Pooled features of each image, one by one."""
    module = load_model(OTHER)
    source, _ = load_images(DataOptions(folder=str(photos)), module)
    module.reset_classifier(0)
    with torch.no_grad():
        return torch.cat([module(source.load(int(i)).image[None]) for i in images.samples])


def test_the_shards_say_which_images_they_are_of(
    photos: Path, data: ActivationDataModule, images: SplitImages, tmp_path: Path
) -> None:
    options = EmbeddingOptions(name="other", model=OTHER)
    (found,) = open_embeddings([options], images, data, tmp_path)
    vectors = found.of(torch.arange(len(images)))
    torch.testing.assert_close(vectors, expected(photos, images), rtol=1e-4, atol=1e-5)
    (folder,) = tmp_path.iterdir()
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    open_embeddings([options], images, data, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written


def test_other_images_are_refused(
    data: ActivationDataModule, images: SplitImages, tmp_path: Path
) -> None:
    wrong = tmp_path / "photos"
    wrong.mkdir()
    Image.new("RGB", (32, 32)).save(wrong / "one.png")
    options = EmbeddingOptions(model=OTHER)
    with pytest.raises(LightsaeError, match=r"evaluation\.images: .* holds other images than"):
        open_embeddings([options], images, data, tmp_path, DataOptions(folder=str(wrong)))


def test_shards_that_do_not_say_their_images_need_them_given(
    images: SplitImages, tmp_path: Path
) -> None:
    with pytest.raises(LightsaeError, match=r"test_vit is a model, .* --evaluation\.images"):
        open_embeddings([EmbeddingOptions(model=OTHER)], images, None, tmp_path)


def test_a_model_without_a_known_embedding_needs_a_layer(
    data: ActivationDataModule, images: SplitImages, tmp_path: Path
) -> None:
    options = EmbeddingOptions(name="own", model=ModelOptions(module="torch.nn.Flatten"))
    with pytest.raises(LightsaeError, match="own has no embedding that is known: give the layer"):
        open_embeddings([options], images, data, tmp_path)
