"""`Clip`: a piece of a recording; splits keep the clips of a recording together."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError

Clips = Mapping[str, "Sequence[Clip]"]
SPLITS = ("find", "choice", "test")


class Clip(NamedTuple):
    """A piece of a recording.

    Attributes:
        recording: Name; clips of the same recording are one sample of a metric.
        audio: [samples] float32 at 16 kHz.
        text: What is said; nothing where there is no speech.
    """

    recording: str
    audio: Array
    text: str = ""


def split_by_recording(
    recordings: Sequence[str], shares: Mapping[str, float], seed: int = 0
) -> dict[str, list[str]]:
    """Deal recordings to splits at random, each to one.

    Args:
        recordings: Names, each once.
        shares: Of each split its share; together 1.
        seed: Of the draw.

    Returns:
        Of each split its recordings, sorted.

    Raises:
        LightsaeError: If shares are not positive or do not sum to 1, or a split would be empty.

    Example:
        >>> shares = {"find": 0.5, "choice": 0.2, "test": 0.3}
        >>> found = split_by_recording(list("abcdefghij"), shares)
        >>> [len(names) for names in found.values()], sorted(sum(found.values(), []))[:3]
        ([5, 2, 3], ['a', 'b', 'c'])
    """
    if min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise LightsaeError(f"splits: shares are {dict(shares)}, expected positive ones of sum 1")
    order = np.random.default_rng(seed).permutation(len(recordings))
    ends = np.rint(np.cumsum(list(shares.values())) * len(recordings)).astype(int)
    parts = np.split(order, ends[:-1])
    found = {
        name: sorted(recordings[place] for place in part)
        for name, part in zip(shares, parts, strict=True)
    }
    empty = [name for name, part in found.items() if not part]
    if empty:
        raise LightsaeError(f"splits: {len(recordings)} recordings leave none for {empty[0]!r}")
    return found


def require_splits(clips: Clips, what: str, splits: Sequence[str] = SPLITS) -> None:
    """Refuse clips that lack a split, or have a recording in two.

    Args:
        clips: Of each split its clips.
        what: What they are, for messages.
        splits: Those that are needed.

    Raises:
        LightsaeError: If they are not whole.
    """
    home: dict[str, str] = {}
    for split in splits:
        if not clips.get(split):
            raise LightsaeError(f"{what}: no clips in split {split!r}")
        for clip in clips[split]:
            if home.setdefault(clip.recording, split) != split:
                raise LightsaeError(
                    f"{what}: recording {clip.recording!r} is in splits "
                    f"{home[clip.recording]!r} and {split!r}, expected one"
                )
