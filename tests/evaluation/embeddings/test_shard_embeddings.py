"""Embeddings from shards of another model, matched by sample whatever the order."""

from pathlib import Path

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.evaluation.embeddings import open_embeddings, read_embeddings
from lightsae.evaluation.split_images import SplitImages

from ..helpers import SAMPLES, class_shards, open_data, random_rows, shuffled, write_rows


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> SplitImages:
    return SplitImages.of(open_data(class_shards(tmp_path_factory.mktemp("x") / "x")), "test")


VECTORS = random_rows(3 * SAMPLES, 5)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_the_shards_does_not_matter(
    seed: int, images: SplitImages, tmp_path: Path
) -> None:
    sample = shuffled(3 * SAMPLES, seed)
    found = read_embeddings(write_rows(tmp_path / "e", VECTORS[sample], sample), "e", images)
    assert torch.equal(found.of(torch.arange(len(images))), VECTORS[images.samples])
    assert found.described(6)["d_e"] == 5


def test_tokens_of_a_sample_are_averaged(images: SplitImages, tmp_path: Path) -> None:
    order = shuffled(6 * SAMPLES)
    sample, token = order // 2, order % 2
    rows = VECTORS[sample] + token[:, None]
    folder = write_rows(tmp_path / "e", rows, sample, token, tokens="patch")
    found = read_embeddings(folder, "e", images).of(torch.arange(len(images)))
    torch.testing.assert_close(found, VECTORS[images.samples] + 0.5)


def test_missing_samples_are_counted_and_the_first_is_named(
    images: SplitImages, tmp_path: Path
) -> None:
    first, second = images.samples[[3, 7]].tolist()
    sample = torch.tensor([n for n in range(3 * SAMPLES) if n not in (first, second)])
    folder = write_rows(tmp_path / "e", VECTORS[sample], sample)
    with pytest.raises(LightsaeError, match=rf"of 2 of the 30 samples .* is sample {first}$"):
        read_embeddings(folder, "e", images)


def test_a_vector_of_zeros_is_refused_before_the_pass(images: SplitImages, tmp_path: Path) -> None:
    vectors, wrong = VECTORS.clone(), int(images.samples[4])
    vectors[wrong] = 0
    folder = write_rows(tmp_path / "e", vectors, torch.arange(len(vectors)))
    with pytest.raises(LightsaeError, match=f"the embedding of sample {wrong} has norm 0"):
        read_embeddings(folder, "e", images)


def test_a_folder_that_is_none_is_named(images: SplitImages, tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="nowhere: no such folder of activation shards"):
        open_embeddings([str(tmp_path / "nowhere")], images, None, tmp_path)


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k"])
def test_a_model_without_its_library_is_told_how_to_be_named(
    name: str, images: SplitImages, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    says = f"^evaluation.embeddings: there is no folder {name}; timm:{name} is the model$"
    with pytest.raises(LightsaeError, match=says):
        open_embeddings([name], images, None, tmp_path)


def test_names_must_tell_embeddings_apart(images: SplitImages, tmp_path: Path) -> None:
    given = [str(tmp_path / "a" / "cnn"), str(tmp_path / "b" / "cnn")]
    with pytest.raises(LightsaeError, match="two are named 'cnn'"):
        open_embeddings(given, images, None, tmp_path)


def test_a_tensor_has_a_row_for_each_sample(images: SplitImages, tmp_path: Path) -> None:
    (found,) = open_embeddings({"cnn": VECTORS}, images, None, tmp_path)
    assert torch.equal(found.of(torch.arange(len(images))), VECTORS[images.samples])
    with pytest.raises(LightsaeError, match=r"'cnn' has 9 rows, none for \d+ of the 30 samples"):
        open_embeddings({"cnn": VECTORS[:9]}, images, None, tmp_path)
    with pytest.raises(LightsaeError, match=r"'cnn' is torch.int64 \[3\], expected floats"):
        open_embeddings({"cnn": torch.arange(3)}, images, None, tmp_path)


def test_embeddings_need_to_know_the_images(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="cnn needs the sample of each row"):
        open_embeddings({"cnn": VECTORS}, None, None, tmp_path)
