"""Figures: what they show as data (`Chart`), drawn by matplotlib here and by the page's script."""

from lightsae.report.figures.style import (
    INK,
    MUTED,
    PALETTE,
    RULE,
    new_figure,
    save_png,
)

__all__ = ["INK", "MUTED", "PALETTE", "RULE", "new_figure", "save_png"]
