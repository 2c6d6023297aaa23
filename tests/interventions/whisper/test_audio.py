"""Recordings of every width of PCM, at 16 kHz."""

import wave

import numpy as np
import pytest

from lightsae.errors import LightsaeError
from lightsae.interventions.whisper import audio_files, read_audio, resampled


def write(path, samples, rate=16_000, channels=1, width=2):
    """Floats in [-1, 1) as PCM."""
    if width == 1:
        raw = np.round(samples * 128 + 128).astype(np.uint8).tobytes()
    else:
        whole = np.round(samples * 2.0 ** (8 * width - 1)).astype("<i8")
        raw = whole.view(np.uint8).reshape(-1, 8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width_reads_the_same_samples(tmp_path, width):
    samples = np.array([0.0, 0.5, -0.5, -1.0, 0.25])
    write(tmp_path / "a.wav", samples, width=width)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), samples, atol=1e-7)


def test_channels_are_averaged_and_the_rate_becomes_16_khz(tmp_path):
    time = np.arange(8_000) / 8_000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    write(tmp_path / "a.wav", np.stack([tone, np.zeros_like(tone)], 1), rate=8_000, channels=2)
    found = read_audio(tmp_path / "a.wav")
    wanted = 0.25 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[500:-500], wanted[500:-500], atol=2e-3)


def test_16_khz_is_left_alone():
    samples = np.linspace(-1, 1, 7)
    np.testing.assert_array_equal(resampled(samples, 16_000), samples.astype(np.float32))


def test_files_are_found_below_the_folder(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/2.WAV", "1.wav", "note.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in audio_files(tmp_path)] == ["1.wav", "2.WAV"]


def test_what_cannot_be_read_is_told(tmp_path, monkeypatch):
    # Without the library, wherever it is installed.
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    (tmp_path / "b.wav").write_bytes(b"RIFF....")
    with pytest.raises(LightsaeError, match=r"a\.flac is no wav file of PCM: pip install"):
        read_audio(tmp_path / "a.flac")
    with pytest.raises(LightsaeError, match=r"b\.wav"):
        read_audio(tmp_path / "b.wav")
    with pytest.raises(LightsaeError, match=r"c\.wav cannot be read"):
        read_audio(tmp_path / "c.wav")
    write(tmp_path / "d.wav", np.zeros(0))
    with pytest.raises(LightsaeError, match=r"d\.wav has no samples"):
        read_audio(tmp_path / "d.wav")
    with pytest.raises(LightsaeError, match="is no folder"):
        audio_files(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LightsaeError, match="has no recordings"):
        audio_files(tmp_path / "empty")


def test_samples_that_are_none_are_refused(tmp_path):
    with pytest.raises(LightsaeError, match="sampling rate is 0 Hz, expected at least 1"):
        resampled(np.zeros(3), 0)
    with pytest.raises(LightsaeError, match=r"samples are \[3\] int16, expected \[samples\]"):
        resampled(np.zeros(3, np.int16), 16_000)
    with pytest.raises(LightsaeError, match=r"samples are \[3, 2\] float64"):
        resampled(np.zeros((3, 2)), 8_000)
    write(tmp_path / "a.wav", np.zeros(4))
    header = bytearray((tmp_path / "a.wav").read_bytes())
    header[24:28] = bytes(4)
    (tmp_path / "a.wav").write_bytes(header)
    with pytest.raises(LightsaeError, match=r"a\.wav: sampling rate is 0 Hz"):
        read_audio(tmp_path / "a.wav")
    header[24:28], header[34:36] = (16_000).to_bytes(4, "little"), (40).to_bytes(2, "little")
    (tmp_path / "a.wav").write_bytes(header)
    with pytest.raises(LightsaeError, match=r"a\.wav has samples of 40 bits, expected 8 to 32"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("rate", [11_025, 22_050, 44_100, 48_000])
def test_a_tone_keeps_its_pitch_at_any_rate(rate):
    found = resampled(np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate)
    wanted = np.sin(2 * np.pi * 440 * np.arange(len(found)) / 16_000)
    assert len(found) == 16_000
    np.testing.assert_allclose(found[500:-500], wanted[500:-500], atol=3e-3)
