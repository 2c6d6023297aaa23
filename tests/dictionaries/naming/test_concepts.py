"""Text files of concepts."""

from pathlib import Path

import pytest

from lightsae.dictionaries import ConceptList, read_concepts
from lightsae.errors import LightsaeError


def written(folder: Path, content: bytes | str) -> Path:
    path = folder / "concepts.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        "cat\nhot dog\nété\n",
        "cat\r\nhot dog\r\nété",
        b"\xef\xbb\xbf" + "cat\n\n  hot dog  \n# a comment\n   # another\nété\n\n".encode(),
    ],
    ids=["plain", "windows", "mark-blanks-comments"],
)
def test_a_concept_on_each_line(tmp_path: Path, content: bytes | str) -> None:
    assert read_concepts(written(tmp_path, content)).names == ["cat", "hot dog", "été"]


def test_a_hierarchy_of_tabs(tmp_path: Path) -> None:
    text = "tabby\tcat\ncat\tfeline\ncat\tpet\nfeline\tanimal\npet\tanimal\nrock\n"
    found = read_concepts(written(tmp_path, text))
    assert found.names == ["tabby", "cat", "feline", "pet", "rock"]
    assert found.ancestors("tabby") == ["cat", "feline", "pet", "animal"]
    assert found.ancestors("rock") == [] and found.ancestors("unknown") == []
    assert found.path("tabby") == ["animal", "feline", "cat", "tabby"]


def test_names_roll_up_to_a_level() -> None:
    found = ConceptList(["tabby", "rock"], {"tabby": ["cat"], "cat": ["animal"]})
    names = ["tabby", None, "rock", "unknown"]
    assert found.rolled_up(names, 0) == ["animal", None, "rock", "unknown"]
    assert found.rolled_up(names, 1) == ["cat", None, "rock", "unknown"]
    assert found.rolled_up(names, 7) == names
    with pytest.raises(LightsaeError, match="level is -1"):
        found.rolled_up(names, -1)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("cat\ndog\ncat\n", "txt:3: 'cat' stands in line 1 already"),
        ("cat\tpet\ncat\tpet\n", "txt:2: 'cat' stands in line 1 already"),
        ("a\tb\tc\n", "txt:1: more than one tab"),
        ("\tb\n", "txt:1: a tab without a name on each side"),
        ("a\t\n", "txt:1: a tab without a name on each side"),
        ("# nothing\n", "there are no concepts"),
        (b"cat\n\xff\n", "is not UTF-8: byte 4"),
        ("a\tb\nb\tc\nc\ta\n", "above itself"),
        ("a\ta\n", "'a' is above itself"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, content: bytes | str, told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        read_concepts(written(tmp_path, content))


def test_a_list_without_a_file_is_checked_too() -> None:
    with pytest.raises(LightsaeError, match="'a' is there twice"):
        ConceptList(["a", "a"], {})


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=r"none.txt cannot be read: No such file"):
        read_concepts(tmp_path / "none.txt")
