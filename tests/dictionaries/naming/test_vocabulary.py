"""Names with directions, and their file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightsae.dictionaries import Vocabulary
from lightsae.errors import LightsaeError


def as_bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_file_gives_back_what_was_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    names = ["cat", " dog", "été", "\ud800", "a\nb", '"']
    vectors = torch.randn(6, 3).to(dtype)
    Vocabulary(names, vectors, {"model": "tiny"}).save(tmp_path / "new" / "v.safetensors")
    found = Vocabulary.load(tmp_path / "new" / "v.safetensors")
    assert found.names == names and found.about == {"model": "tiny"} and len(found) == 6
    assert found.vectors.dtype == dtype and torch.equal(found.vectors, vectors)


def test_the_key_of_the_directions_is_vectors(tmp_path: Path) -> None:
    vectors = torch.randn(4, 3).T
    Vocabulary(["a", "b", "c"], vectors).save(tmp_path / "v.safetensors")
    assert torch.equal(load_file(tmp_path / "v.safetensors")["vectors"], vectors)


@pytest.mark.parametrize(
    ("names", "vectors", "told"),
    [
        ([], torch.ones(0, 2), "there are no names"),
        (["a", "b", "a"], torch.ones(3, 2), "'a' is there twice, in rows 0 and 2"),
        (["a", ""], torch.ones(2, 2), "the name of row 1 is '', expected a word"),
        (["a", 3], torch.ones(2, 2), "the name of row 1 is 3"),
        (["a"], torch.ones(2, 2), "1 names for 2 vectors"),
        (["a", "b"], torch.tensor([[1.0], [0.0]]), r"vector of 'b' \(row 1\) is zero"),
        (["a", "b"], torch.tensor([[1.0], [torch.inf]]), r"vector of 'b' \(row 1\) is not finite"),
        (["a"], torch.ones(1, 2, dtype=torch.int64), r"vectors is torch.int64 \[1, 2\]"),
        (["a"], torch.ones(2), r"vectors is torch.float32 \[2\], expected floats \[names, d\]"),
        (["a"], torch.ones(1, 2).to(torch.float8_e4m3fn), "float8_e4m3fn .* of 16 to 64 bits"),
        (["a"], [[1.0]], "vectors is list"),
    ],
)
def test_what_is_no_vocabulary_is_refused(names: list[str], vectors: object, told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        Vocabulary(names, vectors)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tensors", "metadata", "told"),
    [
        ({"vectors": torch.ones(1, 2)}, {}, "holds vectors, expected the vectors and names"),
        (
            {"vectors": torch.ones(1, 2), "names": as_bytes('["a"]')},
            {},
            "no vocabulary of format 1",
        ),
        (
            {"vectors": torch.ones(1, 2), "names": as_bytes('["a"]')},
            {"vocabulary": "{"},
            "is not JSON",
        ),
        ({"vectors": torch.ones(1, 2), "names": torch.ones(3)}, None, "expected bytes of JSON"),
        ({"vectors": torch.ones(1, 2), "names": as_bytes("[")}, None, "names is no JSON"),
        ({"vectors": torch.ones(1, 2), "names": as_bytes("[1]")}, None, "no list of strings"),
        (
            {"vectors": torch.ones(2, 2), "names": as_bytes('["a", "a"]')},
            None,
            "v.safetensors: vocabulary: 'a' is there twice",
        ),
    ],
)
def test_another_file_is_refused(
    tmp_path: Path,
    tensors: dict[str, torch.Tensor],
    metadata: dict[str, str] | None,
    told: str,
) -> None:
    good = {"vocabulary": '{"format": 1, "about": {}}'}
    save_file(tensors, tmp_path / "v.safetensors", good if metadata is None else metadata)
    with pytest.raises(LightsaeError, match=told):
        Vocabulary.load(tmp_path / "v.safetensors")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    Vocabulary(["a"], torch.ones(1, 2)).save(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(LightsaeError, match="cannot be read"):
        Vocabulary.load(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LightsaeError, match="cannot be written"):
        Vocabulary(["a"], torch.ones(1, 2)).save(tmp_path / "file" / "v.safetensors")
