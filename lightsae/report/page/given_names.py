"""Names of latents, as far as a page shows them."""

from typing import Any

import torch

from lightsae.dictionaries import LatentNames
from lightsae.report.page.packing import ArrayPack
from lightsae.runs.naming.names_table import shown_word

# Words of a latent that a page shows, its name among them.
_MOST = 4


def names_contents(place: int, names: LatentNames | None, pack: ArrayPack) -> dict[str, Any] | None:
    """Names of a run: arrays into the pack, the rest as JSON; nothing of latents without a name.

    Args:
        place: Number of the run on the page.
        names: The names; None where there are none.
        pack: Takes the arrays, under `place/names/...`.
    """
    if names is None:
        return None
    named = names.named.unsqueeze(1)
    candidates = names.candidates[:, :_MOST].where(named, -1)
    used = candidates[candidates >= 0].unique()
    # Only words that are shown go into the page.
    renumbered = torch.full((len(names.words) + 1,), -1)
    renumbered[used] = torch.arange(len(used))
    pack.add(f"{place}/names/words", renumbered[candidates].numpy())
    pack.add(f"{place}/names/scores", names.scores[:, :_MOST].where(named, torch.nan).numpy())
    alive = int(names.alive.sum())
    return {
        "words": [shown_word(names.words[word]) for word in used.tolist()],
        "measure": names.measure,
        "cutoff": names.cutoff,
        "named": int(names.named.sum()),
        "alive": alive,
        "alignment_rate": names.alignment_rate if alive else None,
        "coverage": names.coverage,
        "vocabulary": len(names.words),
    }
