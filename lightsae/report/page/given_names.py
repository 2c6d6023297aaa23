"""Names of latents in a run folder, as far as a page shows them."""

from pathlib import Path
from typing import Any

import torch

from lightsae.activations.extraction.models import weights_hash
from lightsae.dictionaries import LatentNames
from lightsae.dictionaries.naming.names_file import FILE
from lightsae.errors import LightsaeError
from lightsae.report.page.packing import ArrayPack
from lightsae.runs.naming.names_table import shown_word
from lightsae.sae import SparseAutoencoder

# Words of a latent that a page shows, its name among them.
_MOST = 4


def read_names(folder: Path, sae: SparseAutoencoder) -> LatentNames | None:
    """The names in a run folder, or None if there are none.

    Args:
        folder: The run folder.
        sae: Its autoencoder.

    Raises:
        LightsaeError: If they are malformed, or those of another autoencoder.
    """
    if not (folder / FILE).is_file():
        return None
    names = LatentNames.load(folder)
    own = weights_hash(sae)
    if len(names.alive) != sae.d_sae or names.about.get("autoencoder", own) != own:
        raise LightsaeError(
            f"{folder / FILE} is of another autoencoder than {folder / 'sae'}: "
            "run `lightsae name` again"
        )
    return names


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
