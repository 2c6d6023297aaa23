"""Numbers as lines of text."""

from collections.abc import Iterable, Sequence


def text_table(names: Sequence[str], rows: Iterable[Sequence[float]]) -> str:
    """Numbers under their names, integers whole and others with two digits.

    Example:
        >>> print(text_table(["latent", "share"], [[3, 0.5], [17, 1.0]]))
        latent  share
             3   0.50
            17   1.00
    """
    cells = [list(names)]
    cells += [[f"{x:.2f}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )
