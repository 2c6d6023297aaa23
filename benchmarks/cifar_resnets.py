"""The ResNets of CIFAR (arXiv 1512.03385): vision models that are not in timm."""

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters (option A: strided, filled with zeros)."""

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
        if self.added:
            around = self.added // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, around, around))
        return F.relu(x + y)


class CifarResNet(nn.Module):
    """Three stages of so many blocks, 16, 32 and 64 wide; `pool` gives 64 numbers per image."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(blocks, 16, 16, 1)
        self.layer2 = stage(blocks, 16, 32, 2)
        self.layer3 = stage(blocks, 32, 64, 2)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores [B, classes] of images [B, 3, 32, 32]."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.pool(self.layer3(self.layer2(self.layer1(x)))))


class ResNet20(CifarResNet):
    """Stages of three blocks."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(3, classes)


class ResNet32(CifarResNet):
    """Stages of five blocks."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(5, classes)


class ResNet44(CifarResNet):
    """Stages of seven blocks."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(7, classes)


def stage(blocks: int, inner: int, outer: int, stride: int) -> nn.Sequential:
    """Blocks, the first of which may halve the map."""
    rest = (Block(outer, outer, 1) for _ in range(blocks - 1))
    return nn.Sequential(Block(inner, outer, stride), *rest)
