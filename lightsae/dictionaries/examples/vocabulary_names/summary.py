"""The table of an anchored sweep, what it comes to by rule, and some names with their contexts."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from lightsae.dictionaries.examples.vocabulary_names.anchored import (
    CUTOFF,
    R2_GIVEN_UP,
    WANTED,
    Fitted,
    least_of,
)
from lightsae.dictionaries.examples.vocabulary_names.detection import Detection, context
from lightsae.dictionaries.examples.vocabulary_names.text_model import Activations

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN, _CONTEXTS = 8, 3
_COLUMNS = (
    "lambda", "aligned", "aligned\nof alive", "alive", "tokens\ncovered", "R2\nvalidation",
    "R2\ntest", "less plain",
)  # fmt: skip


def table_of(found: Sequence[Fitted], chosen: Fitted | None) -> Table:
    """A row for each lambda; the chosen one is marked."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in _COLUMNS:
        table.add_column(heading, justify="right")
    for each in found:
        mark = " *" if each is chosen else ""
        table.add_row(
            f"{each.weight:g}{mark}", f"{each.aligned:.1%}", f"{each.names.alignment_rate:.1%}",
            f"{each.names.alive.float().mean():.1%}", f"{each.names.coverage:.1%}",
            f"{each.r2['validation']:.4f}", f"{each.r2['test']:.4f}",
            f"{each.r2['test'] - found[0].r2['test']:+.4f}",
        )  # fmt: skip
    return table


def conclusion(found: Sequence[Fitted], chosen: Fitted | None) -> str:
    """Whether 80% of latents came to cosine .8 within .005 of the plain R2; else the trade-off."""
    plain = found[0]
    wanted = f"{WANTED:.0%} of latents at cosine {CUTOFF} with R2 within {R2_GIVEN_UP} of plain"
    if chosen is not None:
        lost = plain.r2["test"] - chosen.r2["test"]
        told = (
            f"lambda {chosen.weight:g}, chosen on validation, aligns {chosen.aligned:.1%} of "
            f"latents; on test its R2 is {-lost:+.4f} from plain."
        )
        if chosen.aligned >= WANTED and lost <= R2_GIVEN_UP:
            return f"Reached: {wanted}. {told}"
    else:
        told = f"No lambda keeps R2 within {R2_GIVEN_UP} of plain on validation."
    least = least_of(found)
    if least is None:
        return f"Not reached: {wanted}. {told} No lambda aligns as many."
    cost = plain.r2["test"] - least.r2["test"]
    return (
        f"Not reached: {wanted}. {told} As many are aligned from lambda {least.weight:g} on, which "
        f"gives up {cost:.4f} of R2 on test."
    )


def told_detection(detection: Detection) -> str:
    """Means over named latents, beside those of names that are dealt out anew."""
    if not len(detection.latents):
        return "No latent has a name and fires often enough to look at."
    current, following = (
        f"{float(share.mean()):.1%} ({chance:.1%})"
        for share, chance in zip(
            (detection.current, detection.following), detection.by_chance, strict=True
        )
    )
    return (
        f"Where {len(detection.latents)} named latents fire most, on text that nothing was fitted "
        f"to, the name is the token at {current} of places and the next one at {following}; in "
        "brackets with the names dealt out anew."
    )


def told_names(
    detection: Detection, found: Activations, tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[str]:
    """Of latents spread over the named ones the name, both shares and contexts."""
    count = len(detection.latents)
    for place in [number * count // _SHOWN for number in range(min(_SHOWN, count))]:
        name = tokenizer.decode(detection.tokens[place : place + 1])
        yield (
            f"latent {int(detection.latents[place])} {name!r}: the token at "
            f"{float(detection.current[place]):.0%}, the next at "
            f"{float(detection.following[place]):.0%}"
        )
        for row in detection.rows[place, :_CONTEXTS].tolist():
            yield f"    {context(found, row, tokenizer)}"
