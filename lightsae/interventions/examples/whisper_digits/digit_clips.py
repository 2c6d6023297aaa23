"""Clips of two seconds: utterances of spoken digits, and pieces of recordings without speech."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.interventions.whisper import Clip, resampled

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SECONDS = 2
_LENGTH = 16_000 * SECONDS
_LONGEST_PAUSE = 2_400
_SHORTEST_PIECE = 8_000
_FIRST_TAKES = {"train": 0, "choice": 20, "test": 25}
_KEYS = (
    "speech",
    "speech_offsets",
    "digit",
    "speaker",
    "take",
    "other",
    "other_offsets",
    "other_names",
)


@dataclass(frozen=True)
class Sounds:
    """The recordings, at 16 kHz.

    Attributes:
        digits: Spoken digits, one a recording.
        digit: Which, [n].
        speaker: Who said it, [n].
        take: Number of the take, [n]; splits are by take.
        others: Recordings without speech.
        names: Of these.
    """

    digits: list[Array]
    digit: Array
    speaker: Array
    take: Array
    others: list[Array]
    names: list[str]


def read_sounds(path: Path) -> Sounds:
    """Read recordings of 8 kHz, int16.

    Args:
        path: An npz file with speech and other, each the recordings end to end, speech_offsets and
            other_offsets, digit, speaker and take of each recording of speech, and other_names.

    Raises:
        LightsaeError: If it is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in _KEYS}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise LightsaeError(f"{path} is no npz file with {', '.join(_KEYS)}: {error}") from error
    return Sounds(
        _recordings(found["speech"], found["speech_offsets"]),
        found["digit"],
        found["speaker"],
        found["take"],
        _recordings(found["other"], found["other_offsets"]),
        [str(name) for name in found["other_names"]],
    )


def _recordings(samples: Array, offsets: Array) -> list[Array]:
    parts = np.split(samples.astype(np.float32) / 2**15, offsets[1:-1])
    return [resampled(part, 8_000) for part in parts]


def takes_of(sounds: Sounds, split: str) -> Array:
    """Recordings of digits of a split: takes 0 to 19 train, 20 to 24 choice, 25 to 29 test.

    Args:
        sounds: The recordings.
        split: train, choice or test.

    Returns:
        Their places, [n] int64.
    """
    first = _FIRST_TAKES[split]
    after = [start for start in _FIRST_TAKES.values() if start > first]
    return np.flatnonzero((sounds.take >= first) & (sounds.take < min(after, default=30)))


def utterances(sounds: Sounds, n: int, rng: np.random.Generator) -> list[Clip]:
    """Utterances for training, of digits that anyone said in the takes for training.

    Args:
        sounds: The recordings.
        n: How many.
        rng: Draws.
    """
    pool = takes_of(sounds, "train")
    return [
        _utterance(sounds, rng.choice(pool, int(rng.integers(1, 4))), "train", rng)
        for _ in range(n)
    ]


def sessions(sounds: Sounds, split: str, passes: int, rng: np.random.Generator) -> list[Clip]:
    """Utterances that take each digit of a split as often; those of a speaker's take are a sample.

    Args:
        sounds: The recordings.
        split: choice or test.
        passes: How often each recording of a digit is used, at other speeds and in other company.
        rng: Draws.
    """
    found: list[Clip] = []
    pool = takes_of(sounds, split)
    whose = list(zip(sounds.speaker[pool].tolist(), sounds.take[pool].tolist(), strict=True))
    for speaker, take in sorted(set(whose)):
        said = pool[[each == (speaker, take) for each in whose]]
        for _ in range(passes):
            stock = rng.permutation(said)
            while len(stock):
                chosen, name = stock[: int(rng.integers(1, 4))], f"speaker {speaker}, take {take}"
                found.append(_utterance(sounds, chosen, name, rng))
                # What did not fit into two seconds is for the next one.
                stock = stock[len(found[-1].text.split()) :]
    return found


def _utterance(sounds: Sounds, chosen: Array, name: str, rng: np.random.Generator) -> Clip:
    """One to three digits at other speeds and levels, with pauses, somewhere in two seconds."""
    parts: list[Array] = []
    words: list[str] = []
    length = 0
    for number in chosen:
        pause = int(rng.integers(_LONGEST_PAUSE)) if words else 0
        digit = _louder(_faster(sounds.digits[number], rng), rng)[:_LENGTH]
        if length + pause + len(digit) > _LENGTH:
            break
        parts += [np.zeros(pause, np.float32), digit]
        words.append(WORDS[sounds.digit[number]])
        length += pause + len(digit)
    return Clip(name, _placed(np.concatenate(parts), rng), " ".join(words))


def pieces(sounds: Sounds, names: Sequence[str], each: int, rng: np.random.Generator) -> list[Clip]:
    """Pieces of recordings without speech, at other speeds and levels, somewhere in two seconds.

    Args:
        sounds: The recordings.
        names: Those that are used.
        each: Pieces of each.
        rng: Draws.
    """
    place = {name: number for number, name in enumerate(sounds.names)}
    return [
        Clip(name, _placed(_piece(sounds.others[place[name]], rng), rng))
        for name in names
        for _ in range(each)
    ]


def _piece(audio: Array, rng: np.random.Generator) -> Array:
    audio = _faster(audio, rng)
    length = min(len(audio), int(rng.integers(_SHORTEST_PIECE, _LENGTH + 1)))
    start = int(rng.integers(len(audio) - length + 1))
    return _louder(audio[start : start + length], rng)


def _faster(audio: Array, rng: np.random.Generator) -> Array:
    """At 0.8 to 1.25 times the speed."""
    places = np.arange(0, len(audio) - 1, rng.uniform(0.8, 1.25))
    found: Array = np.interp(places, np.arange(len(audio)), audio)
    return found


def _louder(audio: Array, rng: np.random.Generator) -> Array:
    """At a peak between 0.3 and 1."""
    peak = max(float(np.abs(audio).max()), 1e-3)
    found: Array = (audio * (rng.uniform(0.3, 1.0) / peak)).astype(np.float32)
    return found


def _placed(audio: Array, rng: np.random.Generator) -> Array:
    """Somewhere in two seconds of silence, [32000]."""
    found = np.zeros(_LENGTH, np.float32)
    start = int(rng.integers(_LENGTH - len(audio) + 1))
    found[start : start + len(audio)] = audio
    return found
