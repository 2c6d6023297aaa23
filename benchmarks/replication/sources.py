"""The shard sets that the study is made on by default: digits, and CIFAR-10 by path."""

from pathlib import Path
from typing import Any

from cifar_resnets import ResNet20, ResNet32, ResNet44
from replication.sets import Pair
from torch import nn

from lightsae.activations import DataOptions, Extraction, LayerTap
from lightsae.activations.extraction.images.image_set import DatasetImages, load_images
from lightsae.activations.extraction.layer_folder import is_complete
from lightsae.activations.extraction.models import ModelOptions, load_model
from lightsae.activations.sources.digits import (
    IMAGE_SIZE,
    Digits,
    Training,
    train_digits_vit,
    train_on_digits,
)

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
COPIES = 8
CIFAR_NETWORKS: dict[str, type[nn.Module]] = {
    "ResNet-20": ResNet20, "ResNet-32": ResNet32, "ResNet-44": ResNet44,
}  # fmt: skip


def digits_pairs(out: Path) -> list[Pair]:
    """Three encoders of timm trained on digits, each compared by the next."""
    networks = {
        "ViT": (train_digits_vit(out / "encoders"), "blocks.3", "class"),
        "ConvNet": (digits_convnet(out / "encoders"), "stages.2", "pooled"),
        "MLP-Mixer": (digits_mixer(out / "encoders"), "norm", "pooled"),
    }
    for name, (module, layer, tokens) in networks.items():
        images: Any = DatasetImages(Digits(COPIES), None, f"digits, {COPIES} copies")
        # A ViT says itself that it has a class token; a Mixer has none.
        prefix = 0 if name == "MLP-Mixer" else None
        _extract(
            out / "shards" / name, LayerTap(module, layer), images, name, tokens,
            prefix_tokens=prefix,
        )  # fmt: skip
    names = list(networks)
    return [
        Pair(f"digits {name}", out / "shards" / name, out / "shards" / e, e, 0.15, 0.25)
        for name, e in zip(names, names[1:] + names[:1], strict=True)
    ]


def digits_convnet(folder: Path) -> nn.Module:
    """A ConvNeXt that tells digits apart; its third stage gives a map of 4 x 4, 64 wide."""
    return train_on_digits(convnext, folder, "digits-convnext", Training(seed=2))


def convnext() -> nn.Module:
    """Untrained; timm's has four stages, whatever the size of the images."""
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(
        in_chans=1, num_classes=10, patch_size=1, depths=(1, 1, 2, 1), dims=(16, 32, 64, 64)
    )


def digits_mixer(folder: Path) -> nn.Module:
    """An MLP-Mixer of four blocks over 16 patches, 64 wide, that tells digits apart."""
    return train_on_digits(mixer, folder, "digits-mixer", Training(seed=3))


def mixer() -> nn.Module:
    """Untrained."""
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(
        in_chans=1, num_classes=10, img_size=IMAGE_SIZE, patch_size=4, num_blocks=4, embed_dim=64
    )


def cifar_pairs(images: Path, networks: Path, out: Path) -> list[Pair]:
    """ResNet-20 and -32 on CIFAR-10, compared by ResNet-44.

    Args:
        images: A folder of images per class.
        networks: Folder with `resnet20-cifar10.safetensors`, and -32 and -44.
        out: Folder that keeps the shards.
    """
    for name, kind in CIFAR_NETWORKS.items():
        folder = out / "shards" / name
        if is_complete(folder):
            continue
        weights = networks / f"{name.lower().replace('-', '')}-cifar10.safetensors"
        module = f"{kind.__module__}.{kind.__qualname__}"
        model = load_model(ModelOptions(module=module, weights=str(weights)))
        data = DataOptions(folder=str(images), size=32, mean=MEAN, std=STD)
        loaded, preparation = load_images(data, model)
        _extract(folder, LayerTap(model, "pool"), loaded, name, "all", preparation=preparation)
    shards = out / "shards"
    return [
        Pair(f"CIFAR-10 {name}", shards / name, shards / "ResNet-44", "ResNet-44")
        for name in ("ResNet-20", "ResNet-32")
    ]


def _extract(
    folder: Path, tap: LayerTap, images: Any, name: str, tokens: Any, **options: Any
) -> None:
    if not is_complete(folder):
        Extraction(tap, images, folder, name, tokens, device="cpu", batch_size=256, **options).run()
