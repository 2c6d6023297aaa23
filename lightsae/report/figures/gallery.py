"""Gallery of latents: the images that activate each of them most."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.report.figures.style import INK, MUTED, PALETTE, RULE, drawable, new_figure, save_png

# Inches.
_LABEL, _CELL, _GAP, _FOOT, _MARGIN, _HEAD = 1.35, 1.0, 0.12, 0.3, 0.3, 0.75


class Images(Protocol):
    """Anything that gives the image of a sample index: a tensor, an array, a list."""

    def __getitem__(self, index: int, /) -> Any:
        """Return one image."""


def _pixels(image: Any) -> NDArray[Any]:
    """Return an image as [H, W] or [H, W, 3], uint8 or float in [0, 1]."""
    pixels = np.asarray(image.detach().cpu() if isinstance(image, Tensor) else image)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise LightsaeError(
            f"an image has shape {list(pixels.shape)}, expected [H, W] or 3 colours"
        )
    if pixels.dtype == np.uint8:
        return pixels
    pixels = pixels.astype(np.float32)
    low, high = min(float(pixels.min()), 0.0), max(float(pixels.max()), 1.0)
    return (pixels - low) / (high - low)


def _draw_cell(
    figure: Any, box: tuple[float, float, float, float], image: Any, value: float, share: float
) -> None:
    """Draw one image; below it the activation and a bar of its share of the row's largest."""
    axes = figure.add_axes(box)
    pixels = _pixels(image)
    smooth = min(pixels.shape[:2]) >= 64
    top = 255 if pixels.dtype == np.uint8 else 1
    axes.imshow(
        pixels,
        cmap="gray",
        vmin=0,
        vmax=top,
        interpolation="antialiased" if smooth else "nearest",
    )
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=RULE, linewidth=0.8)
    bar = {"transform": axes.transAxes, "clip_on": False, "solid_capstyle": "butt"}
    axes.plot([0, 1], [-0.07, -0.07], color=RULE, linewidth=2, **bar)
    axes.plot([0, share], [-0.07, -0.07], color=PALETTE[1], linewidth=2, **bar)
    axes.text(
        0.5,
        -0.13,
        f"{value:#.3g}",
        transform=axes.transAxes,
        ha="center",
        va="top",
        fontsize=7,
        color=MUTED,
    )


def _check(top_indices: Tensor, top_values: Tensor, titles: list[str]) -> None:
    """Raise unless there is one title and one row of equal length per latent."""
    if top_indices.ndim != 2 or top_indices.shape != top_values.shape or not top_indices.numel():
        raise LightsaeError(
            f"top_indices and top_values have shapes {list(top_indices.shape)} and "
            f"{list(top_values.shape)}, expected [latents, n] for both"
        )
    if len(titles) != len(top_indices):
        raise LightsaeError(f"{len(titles)} titles for {len(top_indices)} latents")


def top_images_gallery(
    images: Images,
    top_indices: Tensor,
    top_values: Tensor,
    titles: list[str],
    path: str | Path,
    *,
    heading: str = "Images that activate each latent most",
    note: str = "",
) -> Path:
    r"""Write a PNG with one row per latent and its top activating images from left to right.

    Under each image stand its activation and a bar: its share of the largest in the row.

    Args:
        images: Gives the image of a sample index: [H, W], [1 or 3, H, W] or [H, W, 1 or 3], uint8
            or float. Floats outside [0, 1] are scaled to it.
        top_indices: Samples of each latent [latents, n], int64, strongest first; -1 leaves a place
            empty. From `lightsae.metrics.TopActivating`.
        top_values: Their activations [latents, n].
        titles: Label of each row; lines after the first are set smaller.
        path: The file; replaced atomically.
        heading: Title of the figure.
        note: Second line, such as the encoder that the scores are measured in.

    Returns:
        The path.

    Raises:
        LightsaeError: If shapes or counts disagree, or an image is not one.
        MissingExtraError: If matplotlib is not installed.

    Example:
        >>> import tempfile, torch
        >>> top = torch.tensor([[0, 2], [1, -1]]), torch.tensor([[3.0, 1.0], [2.0, 0.0]])
        >>> titles = ["latent 7\nMS 0.91", "latent 8\nMS 0.42"]
        >>> path = Path(tempfile.mkdtemp()) / "gallery.png"
        >>> top_images_gallery(torch.rand(3, 8, 8), *top, titles, path).read_bytes()[1:4]
        b'PNG'
    """
    _check(top_indices, top_values, titles)
    n_rows, n_columns = top_indices.shape
    width = 2 * _MARGIN + _LABEL + n_columns * (_CELL + _GAP)
    height = _HEAD + n_rows * (_CELL + _FOOT) + _MARGIN
    figure = new_figure(width, height)
    figure.text(_MARGIN / width, 1 - 0.3 / height, heading, fontsize=12, weight="bold", color=INK)
    figure.text(_MARGIN / width, 1 - 0.52 / height, note, fontsize=8, color=MUTED)
    for row, title in enumerate(titles):
        bottom = height - _HEAD - row * (_CELL + _FOOT) - _CELL
        first, _, rest = drawable(title).partition("\n")
        middle = (bottom + _CELL / 2) / height
        # Names are text: a $ in one begins no formula.
        text = {"fontsize": 10, "color": INK, "parse_math": False}
        figure.text(_MARGIN / width, middle + 0.04 / height, first, **text)
        text |= {"fontsize": 8, "color": MUTED, "va": "top"}
        figure.text(_MARGIN / width, middle - 0.04 / height, rest, **text)
        largest = float(top_values[row].max()) or 1.0
        for column in range(n_columns):
            sample, value = int(top_indices[row, column]), float(top_values[row, column])
            if sample >= 0:
                left = _MARGIN + _LABEL + column * (_CELL + _GAP)
                box = (left / width, bottom / height, _CELL / width, _CELL / height)
                _draw_cell(figure, box, images[sample], value, value / largest)
    return save_png(figure, path)
