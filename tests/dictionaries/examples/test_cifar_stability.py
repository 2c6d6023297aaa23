"""The worked example on stability, in small."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lightsae.activations.shards.manifest import Manifest
from lightsae.dictionaries.examples.cifar_stability.__main__ import run
from lightsae.dictionaries.examples.cifar_stability.images import images_of_tar
from lightsae.dictionaries.examples.cifar_stability.networks import CifarResNet, load_network
from lightsae.dictionaries.examples.cifar_stability.study import Sizes
from lightsae.errors import LightsaeError

SMALL = Sizes(
    images=240, d_sae=24, k=6, seeds=2, pools=2, epochs=2, tuning=2, batch_size=16
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of coloured noise in two classes, and a network of one block a stage."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("cifar")
    generator = np.random.default_rng(0)
    with tarfile.open(folder / "images.tar.gz", "w:gz") as archive:
        for place in range(240):
            pixels = generator.integers(0, 256, (32, 32, 3), np.uint8)
            content = io.BytesIO()
            image.fromarray(pixels).save(content, "PNG")
            info = tarfile.TarInfo(f"train/{('cat', 'dog')[place % 2]}/{place}.png")
            info.size = content.tell()
            content.seek(0)
            archive.addfile(info, content)
    torch.manual_seed(0)
    (folder / "networks").mkdir()
    save_file(CifarResNet(1).state_dict(), folder / "networks" / "small.safetensors")
    return folder


@pytest.mark.slow
def test_it_ends_in_tables_and_figures(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(str(data / "images.tar.gz"), str(data / "networks"), str(tmp_path), SMALL)
    text = capfd.readouterr().out
    for row in ("small, cosine", "small, random (uniform)", "small, pooled", "total budget"):
        assert row in text
    assert (tmp_path / "summary.md").read_text().strip() in text.strip()
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"small-thresholds.png", "small-pooled.png"} <= names
    manifest = Manifest.load(tmp_path / "shards" / "small")
    assert (manifest.rows, manifest.d_in, manifest.classes) == (240, 64, ["cat", "dog"])


def test_a_network_is_told_by_its_weights(data: Path, tmp_path: Path) -> None:
    network = load_network(data / "networks" / "small.safetensors")
    images, labels, classes = images_of_tar(data / "images.tar.gz", 9)
    assert images.shape == (9, 3, 32, 32) and len(labels) == 9 and classes == ["cat", "dog"]
    scores = network.linear(network.embedding(images))
    torch.testing.assert_close(network(images), scores)
    save_file({"layer1.0.x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(LightsaeError, match=r"other\.safetensors is no ResNet of CIFAR"):
        load_network(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(LightsaeError, match=r"broken\.safetensors cannot be read"):
        load_network(tmp_path / "broken.safetensors")


def test_what_is_no_tar_of_images_is_named(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    with pytest.raises(LightsaeError, match=r"no\.tar is no tar of images"):
        images_of_tar(tmp_path / "no.tar", 5)
    with pytest.raises(LightsaeError, match="holds no safetensors"):
        run("no.tar", str(tmp_path), str(tmp_path / "out"), SMALL)
