"""Splits keep recordings together; transcripts are checked line by line."""

from itertools import chain

import numpy as np
import pytest

from lightsae.errors import LightsaeError
from lightsae.interventions.whisper import Clip, split_by_recording
from lightsae.interventions.whisper.clips import require_splits
from lightsae.interventions.whisper.whisper_files import read_transcripts

NAMES = [f"r{number}" for number in range(40)]


def test_a_split_is_a_partition_that_the_seed_decides():
    shares = {"find": 0.5, "choice": 0.25, "test": 0.25}
    first, second = (split_by_recording(NAMES, shares, seed) for seed in (0, 1))
    assert [len(part) for part in first.values()] == [20, 10, 10]
    assert sorted(chain.from_iterable(first.values())) == sorted(NAMES)
    assert first == split_by_recording(NAMES, shares, 0) and first != second


@pytest.mark.parametrize("shares", [{"a": 0.5, "b": 0.6}, {"a": 1.5, "b": -0.5}])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(LightsaeError, match="positive ones of sum 1"):
        split_by_recording(NAMES, shares)


def test_a_split_without_recordings_is_refused():
    with pytest.raises(LightsaeError, match="2 recordings leave none for 'b'"):
        split_by_recording(NAMES[:2], {"a": 0.9, "b": 0.1})


def test_a_recording_in_two_splits_is_refused():
    clip = Clip("r", np.zeros(1))
    with pytest.raises(LightsaeError, match="'r' is in splits 'find' and 'choice'"):
        require_splits({"find": [clip], "choice": [clip], "test": [clip]}, "speech")
    with pytest.raises(LightsaeError, match="no clips in split 'choice'"):
        require_splits({"find": [clip]}, "speech")


def test_transcripts(tmp_path):
    (tmp_path / "a.wav").touch()
    table = tmp_path / "t.tsv"
    table.write_text('a.wav\tsay "one"\n')
    assert read_transcripts(table, tmp_path) == {tmp_path / "a.wav": 'say "one"'}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.wav\tone\na.wav\ttwo\n", r"t\.tsv:2: .*a\.wav is there twice"),
        ("b.wav\tone\n", r"t\.tsv:1: .*b\.wav is no file"),
        ("a.wav\tone\n./a.wav\ttwo\n", r"t\.tsv:2: .*a\.wav is there twice"),
        ("../b.wav\tone\n", r"t\.tsv:1: .*b\.wav is outside"),
        ("/etc/hostname\tone\n", r"t\.tsv:1: /etc/hostname is outside"),
        ("a" * 200_000, r"transcripts .* cannot be read: field larger than"),
        ("a.wav one\n", "expected a path, a tab and a text"),
        ("a.wav\t \n", "expected a path, a tab and a text"),
    ],
)
def test_lines_that_are_no_transcripts_are_named(tmp_path, text, message):
    (tmp_path / "a.wav").touch()
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(LightsaeError, match=message):
        read_transcripts(tmp_path / "t.tsv", tmp_path)


def test_a_missing_table_is_told(tmp_path):
    with pytest.raises(LightsaeError, match=r"transcripts .* cannot be read"):
        read_transcripts(tmp_path / "none.tsv", tmp_path)


def test_links_to_recordings_are_recordings(tmp_path):
    (tmp_path / "there.wav").touch()
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "a.wav").symlink_to(tmp_path / "there.wav")
    (folder / "t.tsv").write_text("a.wav\tone\n")
    assert read_transcripts(folder / "t.tsv", folder) == {folder / "a.wav": "one"}
