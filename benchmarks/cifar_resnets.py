"""The ResNet-20 of CIFAR (arXiv 1512.03385): a vision model that is not in timm."""

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


class ResNet20(nn.Module):
    """Three stages of three blocks, 16, 32 and 64 wide; `pool` gives 64 numbers per image."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, 1)
        self.layer2 = stage(16, 32, 2)
        self.layer3 = stage(32, 64, 2)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores [B, classes] of images [B, 3, 32, 32]."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.pool(self.layer3(self.layer2(self.layer1(x)))))


def stage(inner: int, outer: int, stride: int) -> nn.Sequential:
    """Three blocks, the first of which may halve the map."""
    return nn.Sequential(Block(inner, outer, stride), *(Block(outer, outer, 1) for _ in range(2)))
