"""The example of spoken digits, from recordings to page, on tones and noise."""

import numpy as np
import pytest

from lightsae.errors import LightsaeError
from lightsae.interventions.steering import SteeringOptions

pytest.importorskip("transformers")
pytest.importorskip("sklearn")
from lightsae.interventions.examples.whisper_digits.__main__ import main
from lightsae.interventions.examples.whisper_digits.digit_clips import (
    pieces,
    read_sounds,
    sessions,
    utterances,
)
from lightsae.interventions.examples.whisper_digits.example import Sizes, run

RATE = 8_000
SIZES = Sizes(
    d_model=32, layers=1, steps=180, utterances=120, nonspeech=(6, 16, 9), pieces=1, d_sae=32, k=4,
    epochs=2,
)  # fmt: skip
OPTIONS = SteeringOptions([1.0, 2.0], [1, 2], error_term=False, draws=1, bootstrap=100)


def tone(digit, rng):
    time = np.arange(rng.integers(1_600, 2_400)) / RATE
    return 0.5 * np.sin(2 * np.pi * (300 + 250 * int(digit)) * time)


def noise(rng):
    return 0.3 * rng.standard_normal(rng.integers(4_000, 12_000)).clip(-3, 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Digits are tones of ten pitches; what is no speech is noise, and some tones."""
    rng = np.random.default_rng(0)
    digit = np.tile(np.arange(10, dtype=np.int8), 30)
    speech = [tone(each, rng) for each in digit]
    other = [tone(number, rng) if number % 3 == 0 else noise(rng) for number in range(40)]
    parts = {}
    for name, sounds in (("speech", speech), ("other", other)):
        parts[name] = (np.concatenate(sounds) * 32_767).clip(-32_768, 32_767).astype(np.int16)
        parts[f"{name}_offsets"] = np.cumsum([0, *map(len, sounds)])
    path = tmp_path_factory.mktemp("data") / "sounds.npz"
    np.savez(
        path, **parts, digit=digit, speaker=np.zeros(300, np.int8),
        take=np.repeat(np.arange(30), 10).astype(np.int16),
        other_names=np.array([f"sound {number}" for number in range(40)]),
    )  # fmt: skip
    return path


def test_utterances_say_what_they_are_made_of(data):
    sounds, rng = read_sounds(data), np.random.default_rng(0)
    found = sessions(sounds, "test", 1, rng)
    said = sorted(word for clip in found for word in clip.text.split())
    assert len(said) == 50 and said.count("seven") == 5
    assert all(clip.audio.shape == (32_000,) for clip in found)
    assert len({clip.recording for clip in found}) == 5
    assert len(utterances(sounds, 7, rng)) == 7
    made = pieces(sounds, ["sound 3", "sound 4"], 2, rng)
    assert [clip.recording for clip in made] == ["sound 3"] * 2 + ["sound 4"] * 2
    assert all(0 < np.abs(clip.audio).max() <= 1 for clip in made)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_from_recordings_to_page(data, tmp_path, capsys):
    first = run(data, tmp_path, sizes=SIZES, options=OPTIONS)
    assert "does the model hallucinate?" in capsys.readouterr().out
    baseline = first.points_of("baseline", "test")[0].metrics
    assert 0 < baseline["hallucination_rate"].value < 1 and baseline["wer"].value < 1
    assert list(first.latents) == ["model.encoder.layers.0"]
    assert (tmp_path / "steering" / "report.html").exists()
    cells = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    again = run(data, tmp_path, sizes=SIZES, options=OPTIONS)
    assert again == first
    assert cells == {file: file.stat().st_mtime_ns for file in cells}
    with pytest.raises(LightsaeError, match=r"experiment.json has another seed or size"):
        run(data, tmp_path, seed=1, sizes=SIZES, options=OPTIONS)


def test_a_file_that_is_none_is_told(tmp_path, capsys):
    (tmp_path / "a.npz").write_bytes(b"nothing")
    assert main(["--data", str(tmp_path / "a.npz"), "--out", str(tmp_path / "out")]) == 1
    assert "a.npz is no npz file with speech" in capsys.readouterr().err
