"""Small models and datasets that tests name by their class path."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn


class TinyNet(nn.Module):
    """A patch encoder with one class token; output of `tokens` is [B, 5, 8]."""

    num_prefix_tokens = 1

    def __init__(self, width: int = 8, scale: float = 1.0) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.tokens = nn.Identity()
        self.head = nn.Linear(width, 2)
        self.unused = nn.Identity()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        rows = self.patches(x).flatten(2).transpose(1, 2) * self.scale
        rows = self.tokens(torch.cat([rows.mean(1, keepdim=True), rows], 1))
        return self.head(rows[:, 0])


class Noise(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Tensors [3, 16, 16] whose label is their number modulo 4; some may be unreadable or large."""

    classes = ("a", "b", "c", "d")

    def __init__(
        self,
        count: int = 40,
        bad: tuple[int, ...] = (),
        copies: int = 1,
        large: tuple[int, ...] = (),
    ) -> None:
        self.count, self.bad, self.copies, self.large = count, bad, copies, large
        if copies > 1:
            self.original_index = [i % (count // copies) for i in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Any:
        if i in self.bad:
            raise OSError("broken file")
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i))
        return image * 1e6 if i in self.large else image, i % 4


class Activated(torch.nn.Sequential):
    """A model whose arguments leave its weights as they are."""

    def __init__(self, kind: str) -> None:
        super().__init__(getattr(torch.nn, kind)())


def compiled_net() -> nn.Module:
    """A model that its maker has compiled."""
    return torch.compile(TinyNet(), backend="eager")  # type: ignore[return-value]


class Numbered(nn.Sequential):
    """Layers that are called 0, 1 and 2."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.Conv2d(4, 2, 1))


class Amplified(nn.Sequential):
    """Of an image a million times too bright layer 0 fits into float16 and layer 1 does not."""

    def __init__(self) -> None:
        layers = nn.Conv2d(3, 4, 8, 8), nn.Conv2d(4, 4, 1)
        super().__init__(*layers)
        nn.init.constant_(layers[0].weight, 1e-5)
        nn.init.constant_(layers[1].weight, 100.0)


class Arranged(nn.Module):
    """Six tokens of eight numbers; `layer` gives them in an order of axes, or what has none."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.embed = nn.Linear(128, 8)
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.reshape(-1, 6, 128))
        again = self.layer(self._arranged(tokens))
        return self.layer(again) if self.how == "twice" else again

    def _arranged(self, x: Tensor) -> Tensor:
        images = len(x)
        return {
            "BTD": lambda: x,
            "twice": lambda: x,
            "TBD": lambda: x.transpose(0, 1),
            "BDT": lambda: x.transpose(1, 2),
            "DBT": lambda: x.permute(2, 0, 1),
            "BHWD": lambda: x.reshape(images, 3, 2, 8),
            "BCTD": lambda: x.reshape(images, 6, 2, 4).transpose(1, 2),
            "windows": lambda: x.reshape(-1, 2, 8),
            "rows": lambda: x.flatten(0, 1),
            "mean": lambda: x.mean(0),
            "weights": lambda: (x[:, None, :, :6] * torch.ones(1, 2, 1, 1)).softmax(-1),
            "gram": lambda: x.flatten(1) @ x.flatten(1).T,
            "video": lambda: x.reshape(images, 1, 3, 2, 8),
            "DB": lambda: x.flatten(1).T,
            "one": lambda: x.flatten(1).sum(1),
            "ids": lambda: x.flatten(1).argmax(1, keepdim=True),
            "complex": lambda: x + 1j,
            "fewer": lambda: x[:3],
            "random": lambda: x + 1e-6 * torch.rand_like(x),
        }[self.how]()


class Convolutions(nn.Sequential):
    """Maps of four channels, four rows and four columns."""

    def __init__(self) -> None:
        layers = nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        super().__init__(*layers)


def unusable(kind: str) -> nn.Module:
    """A module whose weights are not there, or that is a program."""
    if kind == "meta":
        with torch.device("meta"):
            return nn.Sequential(nn.Linear(2, 2))
    if kind == "lazy":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    module = nn.Sequential(nn.Linear(2, 2))
    return torch.export.export(module, (torch.zeros(2, 2),)).module()


class Odd(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Three items of which none is right."""

    def __init__(self, item: str) -> None:
        self.item = item

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Any:
        image = torch.rand(3, 16, 16)
        return {
            "dict": {"image": i},
            "grey": torch.zeros(1, 16, 16),
            "label": (image, 1 << 70),
            "graph": image.requires_grad_() * 2,
        }[self.item]


class FailsToBuild:
    def __init__(self) -> None:
        raise ZeroDivisionError("no such luck")
