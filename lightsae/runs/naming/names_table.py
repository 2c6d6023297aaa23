"""Names of latents as a table for the terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lightsae.dictionaries import LatentNames


def names_table(found: LatentNames, most: int = 20) -> RenderableType:
    """How many latents have a name, and the surest names.

    Args:
        found: The names.
        most: Latents to show.

    Returns:
        What rich prints.

    Example:
        >>> import torch
        >>> from rich.console import Console
        >>> names = LatentNames(["cat", "dog"], torch.tensor([[1]]), torch.tensor([[0.93]]),
        ...                     alive=torch.tensor([True]), cutoff=0.8)
        >>> Console(width=80).print(names_table(names))  # doctest: +NORMALIZE_WHITESPACE
        1 of 1 alive latents have a name (alignment rate 1.000, cosine at least 0.8);
        1 of 2 words name one (coverage 0.500)
        latent  name  cosine  next
             0  dog    0.930
    """
    named, alive = int(found.named.sum()), int(found.alive.sum())
    words = len(found.index[found.named].unique())
    title = Text(
        f"{named:,} of {alive:,} alive latents have a name (alignment rate "
        f"{found.alignment_rate:.3f}, {found.measure} at least {found.cutoff:g});\n"
        f"{words:,} of {len(found.words):,} words name one (coverage {found.coverage:.3f})"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("latent", justify="right")
    table.add_column("name", overflow="fold")
    table.add_column(found.measure, justify="right")
    table.add_column("next", overflow="fold")
    score = found.similarity.where(found.named, -2.0)
    for latent in score.argsort(descending=True, stable=True)[: min(most, named)].tolist():
        (word, first), *rest = found.candidates_of(latent)
        following = ", ".join(f"{shown_word(other)} {value:.2f}" for other, value in rest[:3])
        table.add_row(str(latent), Text(shown_word(word)), f"{first:.3f}", Text(following))
    return Group(title, table) if named and most else title


def shown_word(word: str) -> str:
    r"""A word with what a terminal cannot show, or would obey, made visible.

    Example:
        >>> shown_word("a\nb")
        'a\\nb'
    """
    return word if word.isprintable() else repr(word)[1:-1]
