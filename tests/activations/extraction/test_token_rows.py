import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightsae.activations import DataOptions, Manifest, ModelOptions, extract
from lightsae.activations.extraction.token_rows import TokenChoice, present_tokens
from lightsae.errors import LightsaeError
from tests.activations.extraction.extractions import rows_of

STAND_INS = "tests.activations.stand_ins"
OUTPUT = torch.arange(3 * 6 * 2, dtype=torch.float32).view(3, 6, 2)
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]])
INPUTS = {"input_ids": MASK, "attention_mask": MASK}


def _module() -> nn.Module:
    module = nn.Identity()
    module.num_prefix_tokens = 1  # type: ignore[assignment]
    return module


def test_without_a_mask_every_token_is_a_row() -> None:
    rows = TokenChoice("all").rows(OUTPUT, torch.zeros(3, 1), _module(), [0, 1, 2])
    assert torch.equal(rows.activations, OUTPUT.flatten(0, 1))
    assert rows.image.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert rows.token.tolist() == list(range(6)) * 3
    assert rows.span == 6


def test_padding_gives_no_rows() -> None:
    rows = TokenChoice("patch").rows(OUTPUT, INPUTS, _module(), [0, 1, 2])
    assert rows.image.tolist() == [0] * 5 + [1] * 2 + [2]
    assert rows.token.tolist() == [1, 2, 3, 4, 5, 1, 2, 5]
    for row, image, token in zip(*rows[:3], strict=True):
        assert torch.equal(row, OUTPUT[image, token])


def test_padding_is_not_in_the_mean() -> None:
    rows = TokenChoice("pooled").rows(OUTPUT, INPUTS, _module(), [0, 1, 2])
    expected = [OUTPUT[0, 1:].mean(0), OUTPUT[1, 1:3].mean(0), OUTPUT[2, 5]]
    assert torch.equal(rows.activations, torch.stack(expected))
    assert (rows.image.tolist(), rows.token.tolist()) == ([0, 1, 2], [0, 0, 0])


def test_a_mask_without_padding_says_nothing_of_a_layer_with_other_tokens() -> None:
    whole = {"attention_mask": torch.ones(3, 6)}
    assert present_tokens(whole, torch.zeros(3, 4, 2)) is None
    assert present_tokens(INPUTS, torch.zeros(3, 6)) is None
    assert present_tokens(torch.zeros(3, 3, 8, 8), OUTPUT) is None


def test_a_token_of_several_steps_is_padding_where_all_of_them_are() -> None:
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]])
    present = present_tokens({"attention_mask": mask}, torch.zeros(3, 3, 2))
    assert present is not None
    assert present.int().tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]


def test_padding_of_unknown_tokens_is_refused() -> None:
    with pytest.raises(LightsaeError, match=r"attention_mask is \[3, 6\] with padding, the layer"):
        present_tokens(INPUTS, torch.zeros(3, 4, 2))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_tokens_of_an_image_are_drawn_without_repeat_and_in_order(count: int) -> None:
    choice = TokenChoice("patch", per_image=count)
    rows = choice.rows(OUTPUT, torch.zeros(3, 1), _module(), [7, 8, 9])
    assert rows.image.tolist() == [image for image in range(3) for _ in range(count)]
    for image in range(3):
        tokens = rows.token[rows.image == image].tolist()
        assert tokens == sorted(set(tokens))
        assert set(tokens) <= {1, 2, 3, 4, 5}


def test_a_draw_is_of_the_image_and_not_of_its_batch() -> None:
    choice = TokenChoice("all", per_image=2)
    together = choice.rows(OUTPUT, torch.zeros(3, 1), _module(), [7, 8, 9])
    turned = choice.rows(OUTPUT.flip(0), torch.zeros(3, 1), _module(), [9, 8, 7])
    assert together.token.view(3, 2).tolist() == turned.token.view(3, 2).flip(0).tolist()


def test_every_token_is_drawn_as_often() -> None:
    images = 3000
    output = torch.zeros(images, 6, 1)
    choice = TokenChoice("all", per_image=2)
    rows = choice.rows(output, torch.zeros(images, 1), _module(), list(range(images)))
    counts = rows.token.bincount(minlength=6).double()
    assert (counts.sum(), len(counts)) == (2 * images, 6)
    # A share of 1/3 of 3000 has a standard deviation of 26.
    assert (counts - images / 3).abs().max() < 4 * 26


def test_where_padding_leaves_fewer_all_are_taken() -> None:
    rows = TokenChoice("all", per_image=4).rows(OUTPUT, INPUTS, _module(), [0, 1, 2])
    assert rows.image.bincount().tolist() == [4, 3, 1]


def test_more_tokens_than_there_are_is_refused() -> None:
    with pytest.raises(LightsaeError, match=r"^tokens_per_image is 6: the layer gives 5 patch tok"):
        TokenChoice("patch", per_image=6).rows(OUTPUT, torch.zeros(3, 1), _module(), [0, 1, 2])


def test_no_tokens_at_all_is_refused() -> None:
    with pytest.raises(LightsaeError, match=r"^tokens_per_image is 0, expected at least 1$"):
        TokenChoice("patch", per_image=0)


def _extract(out: Path, **options: Any) -> Manifest:
    (manifest,) = extract(
        ModelOptions(module=f"{STAND_INS}.TinyNet"),
        DataOptions(dataset=f"{STAND_INS}.Noise", arguments=options.pop("arguments", {})),
        layer="tokens",
        out=str(out),
        **{"tokens": "patch", "dtype": "float32", "batch_size": 6, **options},
    )
    return manifest


def test_an_extraction_stores_drawn_tokens_with_their_positions(tmp_path: Path) -> None:
    _extract(tmp_path / "all")
    manifest = _extract(tmp_path / "drawn", tokens_per_image=2)
    assert manifest.rows == 80
    assert manifest.settings["tokens_per_image"] == 2
    whole, drawn = rows_of(tmp_path / "all"), rows_of(tmp_path / "drawn")
    assert np.bincount([sample for sample, _ in drawn]).tolist() == [2] * 40
    for place, row in drawn.items():
        np.testing.assert_allclose(row, whole[place], rtol=1e-6)
    assert len({tuple(t for s, t in drawn if s == sample) for sample in range(40)}) > 3


def test_a_draw_depends_on_no_batch_size_and_no_workers(tmp_path: Path) -> None:
    _extract(tmp_path / "a", tokens_per_image=2)
    _extract(tmp_path / "b", tokens_per_image=2, batch_size=7, workers=1)
    _extract(tmp_path / "c", tokens_per_image=2, seed=1)
    first, second, other = (set(rows_of(tmp_path / name)) for name in "abc")
    assert first == second != other


def test_another_draw_is_not_mixed_into_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError):
        _extract(tmp_path, tokens_per_image=2, rows_per_shard=10, arguments={"bad": [39]})
    begun = Manifest.load(tmp_path)
    assert begun.shards
    assert not begun.complete
    says = re.escape(f"{tmp_path}: was begun with tokens_per_image = 2")
    with pytest.raises(LightsaeError, match=says):
        _extract(tmp_path, tokens_per_image=3, rows_per_shard=10, arguments={"bad": [39]})
