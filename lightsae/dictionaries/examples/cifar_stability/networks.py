"""The ResNets of CIFAR (arXiv 1512.03385), read from safetensors."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from lightsae.errors import LightsaeError

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two convolutions, and a shortcut without parameters: strided, filled with zeros."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.stride, self.added = stride, outer - inner

    def forward(self, x: Tensor) -> Tensor:
        """A map [B, C, H, W] through the block."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        half = self.added // 2
        return F.relu(F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half)) + y)


class CifarResNet(nn.Module):
    """Three stages of so many blocks; what stands before `linear` is 64 wide.

    Example:
        >>> CifarResNet(blocks=1).eval().embedding(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 64])
    """

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        inner = (WIDTHS[0], *WIDTHS)
        for stage, outer in enumerate(WIDTHS):
            first = Block(inner[stage], outer, 1 if stage == 0 else 2)
            rest = [Block(outer, outer, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(WIDTHS[-1], classes)

    def embedding(self, x: Tensor) -> Tensor:
        """Mean over places of the last map, [B, 64], of images [B, 3, 32, 32]."""
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(len(WIDTHS)):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [B, classes] of images [B, 3, 32, 32]."""
        scores: Tensor = self.linear(self.embedding(x))
        return scores


def load_network(path: Path) -> CifarResNet:
    """A network by its weights, which tell the number of blocks.

    Args:
        path: A safetensors file with keys such as layer1.0.conv1.weight.

    Raises:
        LightsaeError: If it cannot be read, or is no such network.
    """
    try:
        weights = load_file(path)
        blocks = len({name.split(".")[1] for name in weights if name.startswith("layer1.")})
        network = CifarResNet(blocks, len(weights["linear.weight"]))
        network.load_state_dict(weights)
    except (OSError, SafetensorError) as error:
        raise LightsaeError(f"{path} cannot be read: {error}") from error
    except (KeyError, RuntimeError, IndexError) as error:
        first = str(error).splitlines()[0]
        raise LightsaeError(f"{path} is no ResNet of CIFAR: {first}") from error
    return network.eval().requires_grad_(False)


@torch.no_grad()
def embeddings(network: CifarResNet, images: Tensor, batch: int = 256) -> Tensor:
    """What a network makes of images.

    Args:
        network: In evaluation mode.
        images: [n, 3, 32, 32], normalised as it was trained.
        batch: Images at once.

    Returns:
        [n, 64].
    """
    return torch.cat([network.embedding(part) for part in images.split(batch)])
