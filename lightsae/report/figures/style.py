"""Colours, saving and what all figures share."""

from pathlib import Path
from typing import Any

from lightsae.extras import require
from lightsae.files import replacing

INK = "#1b1f24"
MUTED = "#6e7781"
RULE = "#d8dee4"
PALETTE = ("#57606a", "#0969da", "#d9480f", "#2f9e44", "#9c36b5", "#e8a200")


def new_figure(width: float, height: float) -> Any:
    """Make a figure that no global state knows of.

    Args:
        width: Inches.
        height: Inches.

    Returns:
        A `matplotlib.figure.Figure` drawn by Agg.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure = require("matplotlib.figure", extra="report").Figure(
        figsize=(width, height), facecolor="white"
    )
    require("matplotlib.backends.backend_agg", extra="report").FigureCanvasAgg(figure)
    return figure


def drawable(text: str) -> str:
    r"""A text with characters that the font of figures lacks as escapes.

    Args:
        text: Such as a name of a class or of a latent.

    Raises:
        MissingExtraError: If matplotlib is not installed.

    Example:
        >>> drawable("cat \u732b")
        'cat \\u732b'
    """
    manager = require("matplotlib.font_manager", extra="report")
    known = manager.get_font(manager.findfont(manager.FontProperties())).get_char_index
    return "".join(
        each if each == "\n" or known(ord(each)) else each.encode("unicode_escape").decode()
        for each in text
    )


def save_png(figure: Any, path: str | Path, *, dpi: int = 150) -> Path:
    """Write a figure; a crash leaves the old file or the new one.

    Args:
        figure: From `new_figure`.
        path: The file; its folder is made if missing.
        dpi: Pixels per inch.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    return path
