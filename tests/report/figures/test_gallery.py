import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.metrics import TopActivating
from lightsae.report import top_images_gallery
from lightsae.report.figures.gallery import _pixels
from lightsae.report.figures.style import drawable

TOP = torch.tensor([[0, 2], [1, -1]])
VALUES = torch.tensor([[3.0, 1.0], [2.0, 0.0]])
TITLES = ["latent 7\nMS 0.91", "latent 8"]


def size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20]), int.from_bytes(header[20:24])


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(3, 8, 8),
        torch.rand(3, 1, 8, 8),
        torch.rand(3, 3, 8, 12),
        torch.randn(3, 3, 80, 80),
        (torch.rand(3, 8, 8, 3) * 255).byte(),
        [np.zeros((8, 8), dtype=np.uint8)] * 3,
    ],
    ids=["grey", "one-channel", "colour", "normalised", "uint8-last", "list"],
)
def test_any_kind_of_image_is_drawn(images: Any, tmp_path: Path) -> None:
    path = top_images_gallery(images, TOP, VALUES, TITLES, tmp_path / "deep" / "gallery.png")
    assert path == tmp_path / "deep" / "gallery.png"
    width, height = size(path)
    assert width > 300
    assert height > 300
    assert [file.name for file in path.parent.iterdir()] == ["gallery.png"]


def test_more_latents_and_images_make_it_larger(tmp_path: Path) -> None:
    images = torch.rand(3, 8, 8)
    small = size(top_images_gallery(images, TOP, VALUES, TITLES, tmp_path / "a.png"))
    wide = size(
        top_images_gallery(
            images, TOP.repeat(3, 2), VALUES.repeat(3, 2), TITLES * 3, tmp_path / "b.png"
        )
    )
    assert wide[0] > small[0]
    assert wide[1] > small[1]


def test_it_takes_what_the_metric_returns(tmp_path: Path) -> None:
    metric = TopActivating(d_sae=4, n=3)
    metric.update(torch.tensor([[2.0], [1.0]]), torch.tensor([[3], [3]]), torch.tensor([0, 2]))
    top = metric.compute()
    path = top_images_gallery(
        torch.rand(3, 8, 8), top.samples[3:], top.values[3:], ["latent 3"], tmp_path / "a.png"
    )
    assert size(path)[0] > 300


def test_colours_and_brightness_are_kept() -> None:
    image = torch.zeros(3, 8, 8)
    image[0] = 0.5
    pixels = _pixels(image)
    assert pixels.shape == (8, 8, 3)
    assert pixels[0, 0].tolist() == [0.5, 0.0, 0.0]


def test_floats_outside_the_unit_interval_are_scaled() -> None:
    pixels = _pixels(torch.tensor([[-1.0, 3.0], [1.0, 0.0]]))
    assert pixels.tolist() == [[0.0, 1.0], [0.5, 0.25]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_values": VALUES[:, :1]}, r"shapes \[2, 2\] and \[2, 1\]"),
        ({"titles": ["one"]}, "1 titles for 2 latents"),
        ({"images": torch.zeros(3, 5, 8, 8)}, r"an image has shape \[5, 8, 8\]"),
        (
            {"top_indices": TOP[:0], "top_values": VALUES[:0], "titles": []},
            r"expected \[latents, n\]",
        ),
    ],
    ids=["shapes", "titles", "channels", "none"],
)
def test_bad_input_is_named_and_nothing_is_written(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    good = {
        "images": torch.rand(3, 8, 8),
        "top_indices": TOP,
        "top_values": VALUES,
        "titles": TITLES,
    }
    with pytest.raises(LightsaeError, match=message):
        top_images_gallery(**(good | change), path=tmp_path / "gallery.png")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_matplotlib_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_NoMatplotlib(), *sys.meta_path])
    with pytest.raises(LightsaeError, match=r"lightsae\[report\]"):
        top_images_gallery(torch.rand(3, 8, 8), TOP, VALUES, TITLES, tmp_path / "gallery.png")


class _NoMatplotlib:
    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_characters_that_the_font_lacks_are_escaped(tmp_path: Path) -> None:
    """Matplotlib warns of them, and warnings are errors here."""
    top = torch.tensor([[0]]), torch.tensor([[1.0]])
    title = "latent 1\n\u732b \u0120the $$ 0.91"
    assert drawable(title) == "latent 1\n\\u732b \u0120the $$ 0.91"
    top_images_gallery(torch.rand(1, 8, 8), *top, [title], tmp_path / "g.png")
