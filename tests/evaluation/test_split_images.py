"""Which image a row belongs to, for one row an image, copies of a sample, and patches."""

from pathlib import Path

import pytest
import torch

from lightsae.evaluation.split_images import SplitImages

from .helpers import open_data, patch_shards, random_rows, shuffled, write_rows


def test_a_row_is_an_image_where_tokens_are_of_the_class(tmp_path: Path) -> None:
    sample, copy = torch.arange(40) // 2, torch.arange(40) % 2 * 17
    order = shuffled(40)
    rows = write_rows(tmp_path / "x", random_rows(40), sample[order], copy[order])
    images = SplitImages.of(open_data(rows, test_fraction=0.5), "test")
    assert len(images) == images.rows == 20 and len(images.distinct) == 10
    shuffle = shuffled(20)
    places = (torch.from_numpy(each)[shuffle] for each in (images.samples, images.tokens))
    assert torch.equal(images.number(*places), shuffle)


@pytest.mark.parametrize("kind", ["patch", "all", ""])
def test_a_sample_is_an_image_where_it_has_several_rows(kind: str, tmp_path: Path) -> None:
    order = shuffled(120)
    sample, token = order // 4, order % 4 + 1
    rows = write_rows(
        tmp_path / "x", random_rows(120), sample, token, label=sample % 5, tokens=kind
    )
    images = SplitImages.of(open_data(rows), "test")
    assert images.tokens is None and images.rows == 60 and len(images) == 15
    assert images.labels.tolist() == (images.samples % 5).tolist()
    assert images.n_classes == 5
    assert images.grid == ((2, 2) if kind == "patch" else None)
    assert images.told_apart
    repeated = torch.from_numpy(images.samples).repeat(2)
    expected = torch.arange(15).repeat(2)
    assert torch.equal(images.number(repeated, torch.ones(30).long()), expected)


@pytest.mark.parametrize("missing", [0, 1])
def test_patches_have_a_grid_where_none_is_missing(missing: int, tmp_path: Path) -> None:
    order = shuffled(9 * 20)[missing:]
    rows = write_rows(
        tmp_path / "x", random_rows(len(order)), order // 9, order % 9 + 5, tokens="patch"
    )
    images = SplitImages.of(open_data(rows), "all")
    assert images.grid == (None if missing else (3, 3))
    assert images.first_patch == 5


def test_rows_of_one_number_are_not_told_apart(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "x", random_rows(40), torch.arange(40) // 2, tokens="class")
    images = SplitImages.of(open_data(rows), "test")
    assert not images.told_apart and images.tokens is None


def test_labels_may_have_no_names_or_not_be_there(tmp_path: Path) -> None:
    images = SplitImages.of(open_data(patch_shards(tmp_path / "x")), "train")
    assert images.n_classes == 4
    rows = write_rows(tmp_path / "y", random_rows(40), torch.arange(40))
    images = SplitImages.of(open_data(rows), "train")
    assert images.labels is None and images.n_classes == 0
