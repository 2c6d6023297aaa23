"""Recordings as Whisper hears them: mono, 16 kHz, float32 in [-1, 1]."""

import wave
from math import gcd
from pathlib import Path

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.extras import MissingExtraError, require

SAMPLING_RATE = 16_000
_ENDINGS = (".wav", ".flac", ".ogg", ".mp3")


def audio_files(folder: Path) -> list[Path]:
    """The recordings of a folder and those below it: wav, flac, ogg and mp3, sorted.

    Args:
        folder: The folder.

    Raises:
        LightsaeError: If it is none or has no recordings.
    """
    if not folder.is_dir():
        raise LightsaeError(f"{folder} is no folder, expected one of recordings")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS)
    if not found:
        raise LightsaeError(f"{folder} has no recordings ({', '.join(_ENDINGS)})")
    return found


def read_audio(path: Path) -> Array:
    """A recording, its channels averaged, at 16 kHz.

    PCM in wav files is read by the standard library, every other format needs `soundfile`.

    Args:
        path: The file.

    Returns:
        [samples] float32 in [-1, 1].

    Raises:
        LightsaeError: If it cannot be read, is empty or not finite, or is of a format that nothing
            here reads.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "tone.wav"
        >>> with wave.open(str(path), "wb") as file:
        ...     file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
        ...     file.writeframes(np.full(800, 16384, "<i2").tobytes())
        (None, None, None)
        >>> read_audio(path).shape
        (1600,)
    """
    try:
        samples, rate = _pcm(path) if path.suffix.lower() == ".wav" else _by_soundfile(path)
    except (OSError, EOFError) as error:
        raise LightsaeError(f"{path} cannot be read: {error}") from error
    if not len(samples):
        raise LightsaeError(f"{path} has no samples")
    if not np.isfinite(samples).all():
        raise LightsaeError(f"{path} has samples that are not finite")
    try:
        return resampled(samples, rate)
    except LightsaeError as error:
        raise LightsaeError(f"{path}: {error}") from error


def resampled(samples: Array, rate: int) -> Array:
    """Samples at 16 kHz, by a polyphase filter.

    Args:
        samples: [samples] floats.
        rate: Their sampling rate in Hz.

    Returns:
        [samples] float32.

    Raises:
        LightsaeError: If the rate is not positive, or the samples are not floats of one axis.
        MissingExtraError: If scipy is not installed.

    Example:
        >>> resampled(np.zeros(80), 8000).shape
        (160,)
    """
    if rate < 1:
        raise LightsaeError(f"sampling rate is {rate} Hz, expected at least 1")
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise LightsaeError(
            f"samples are {list(samples.shape)} {samples.dtype}, expected [samples] floats in "
            "[-1, 1]"
        )
    if rate == SAMPLING_RATE:
        return samples.astype(np.float32)
    common = gcd(SAMPLING_RATE, rate)
    signal = require("scipy.signal", extra="evaluation")
    found: Array = signal.resample_poly(samples, SAMPLING_RATE // common, rate // common)
    return found.astype(np.float32)


def _pcm(path: Path) -> tuple[Array, int]:
    try:
        with wave.open(str(path), "rb") as file:
            width, rate, channels = file.getsampwidth(), file.getframerate(), file.getnchannels()
            raw = file.readframes(file.getnframes())
    except wave.Error:  # compressed or of floats
        return _by_soundfile(path)
    if width > 4:
        raise LightsaeError(f"{path} has samples of {8 * width} bits, expected 8 to 32")
    raw = raw[: len(raw) - len(raw) % (width * channels)]
    return _floats(raw, width).reshape(-1, channels).mean(axis=1), rate


def _floats(raw: bytes, width: int) -> Array:
    """PCM of 1 (unsigned), 2, 3 or 4 bytes as floats in [-1, 1]."""
    if width == 1:
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / 128
    # The bytes of each sample at the high end of 32 bits.
    wide = np.zeros((len(raw) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)
    found: Array = wide.view("<i4")[:, 0].astype(np.float32) / 2**31
    return found


def _by_soundfile(path: Path) -> tuple[Array, int]:
    try:
        soundfile = require("soundfile", extra="all")
    except MissingExtraError as error:
        raise LightsaeError(
            f"{path} is no wav file of PCM: pip install soundfile, or convert it"
        ) from error
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise LightsaeError(f"{path} cannot be read: {error}") from error
    return samples.mean(axis=1), int(rate)
