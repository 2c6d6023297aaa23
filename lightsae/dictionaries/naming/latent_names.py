"""`LatentNames`: what each latent is called and how surely, and its file latent_names.json."""

import json
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from lightsae.activations.shards.json_values import plain
from lightsae.dictionaries.naming.names_file import FILE, parsed_names, written_names
from lightsae.errors import LightsaeError
from lightsae.files import write_whole

Measure = Literal["cosine", "purity"]


@dataclass(frozen=True, eq=False)
class LatentNames:
    """Candidates for the name of each latent; the first is its name where its score is enough.

    Attributes:
        words: What latents can be called, [V].
        candidates: Places in `words`, the best first [d_sae, n], int64; -1 where there is none.
        scores: Of them [d_sae, n], float32; NaN where there is none.
        alive: Latents that fire, which alone are counted and named [d_sae], bool.
        cutoff: Least score of a name.
        measure: What scores are: cosine with a word's direction, or purity in a label beyond
            chance.
        about: Where the words come from, as JSON can hold it.

    Raises:
        LightsaeError: If these do not fit together.

    Example:
        >>> import tempfile
        >>> found = LatentNames(
        ...     ["cat", "dog"], torch.tensor([[1], [0]]), torch.tensor([[0.9], [0.3]]),
        ...     alive=torch.tensor([True, True]), cutoff=0.8,
        ... )
        >>> found.names, found.nearest, found.alignment_rate, found.coverage
        (['dog', None], ['dog', 'cat'], 0.5, 0.5)
        >>> folder = tempfile.mkdtemp()
        >>> found.save(folder)
        >>> LatentNames.load(folder).names
        ['dog', None]
    """

    words: list[str]
    candidates: Tensor
    scores: Tensor
    alive: Tensor
    cutoff: float
    measure: Measure = "cosine"
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_fit(self)

    @property
    def index(self) -> Tensor:
        """The best word of each latent, whatever its score [d_sae] int64; -1 without one."""
        return self.candidates[:, 0]

    @property
    def similarity(self) -> Tensor:
        """Score of the best word [d_sae] float32; NaN without one."""
        return self.scores[:, 0]

    @cached_property
    def named(self) -> Tensor:
        """Which latents have a name [d_sae] bool."""
        return self.alive & (self.similarity >= self.cutoff)

    @cached_property
    def nearest(self) -> list[str | None]:
        """The best word of each latent, also below the cut-off; None without one."""
        return [self.words[place] if place >= 0 else None for place in self.index.tolist()]

    @cached_property
    def names(self) -> list[str | None]:
        """The name of each latent; None where it has none."""
        named = self.named.tolist()
        return [
            word if is_named else None for word, is_named in zip(self.nearest, named, strict=True)
        ]

    @property
    def alignment_rate(self) -> float:
        """Share of the alive latents that have a name; NaN without one alive."""
        alive = int(self.alive.sum())
        return int(self.named.sum()) / alive if alive else math.nan

    @property
    def coverage(self) -> float:
        """Share of the words that name some latent."""
        return len(self.index[self.named].unique()) / len(self.words)

    def candidates_of(self, latent: int) -> list[tuple[str, float]]:
        """Words and scores of one latent, the best first.

        Raises:
            LightsaeError: If there is no such latent.
        """
        if not 0 <= latent < len(self.candidates):
            raise LightsaeError(f"latent is {latent}, expected one of {len(self.candidates)}")
        pairs = zip(self.candidates[latent].tolist(), self.scores[latent].tolist(), strict=True)
        return [(self.words[place], score) for place, score in pairs if place >= 0]

    def with_cutoff(self, cutoff: float) -> "LatentNames":
        """The same candidates under another cut-off."""
        return replace(self, cutoff=cutoff)

    def save(self, folder: str | Path) -> None:
        """Write latent_names.json, replaced as a whole.

        Args:
            folder: Where, such as a run folder; made if it is not there.

        Raises:
            LightsaeError: If it cannot be written, or `about` is more than JSON can hold.
        """
        settings = {
            "measure": self.measure, "cutoff": float(self.cutoff),
            "about": plain(self.about, "about"), "words": list(self.words),
        }  # fmt: skip
        text = json.dumps(written_names(settings, self.alive, self.candidates, self.scores))
        write_whole(Path(folder) / FILE, text + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Args:
            folder: The folder with latent_names.json.

        Raises:
            LightsaeError: If the file is missing or is not what `save` writes.

        Example:
            >>> LatentNames.load("nowhere")
            Traceback (most recent call last):
            ...
            lightsae.errors.LightsaeError: nowhere/latent_names.json cannot be read: No such file \
or directory
        """
        path = Path(folder) / FILE
        try:
            return cls(**parsed_names(path))
        except LightsaeError as error:
            text = str(error)
            raise LightsaeError(
                text if text.startswith(str(path)) else f"{path}: {text}"
            ) from error


def _require_fit(names: LatentNames) -> None:
    """Refuse parts that do not fit together."""
    candidates, scores, alive = names.candidates, names.scores, names.alive
    if candidates.ndim != 2 or candidates.shape != scores.shape or candidates.shape[1] < 1:
        raise LightsaeError(
            f"candidates and scores are {list(candidates.shape)} and {list(scores.shape)}, "
            "expected [d_sae, n] for both"
        )
    if alive.dtype != torch.bool or list(alive.shape) != [len(candidates)]:
        raise LightsaeError(
            f"alive is {alive.dtype} {list(alive.shape)}, expected bool [{len(candidates)}]"
        )
    if not names.words:
        raise LightsaeError("words is empty, expected one or more")
    if ((candidates < -1) | (candidates >= len(names.words))).any():
        raise LightsaeError(f"candidates must lie in [-1, {len(names.words)} words)")
    if not torch.equal(scores.isnan(), candidates < 0) or scores.isinf().any():
        raise LightsaeError("scores must be finite where there is a candidate, and NaN elsewhere")
    if not math.isfinite(names.cutoff):
        raise LightsaeError(f"cutoff is {names.cutoff}, expected a number")
    if names.measure not in get_args(Measure):
        raise LightsaeError(f"measure is {names.measure!r}, expected one of {get_args(Measure)}")
