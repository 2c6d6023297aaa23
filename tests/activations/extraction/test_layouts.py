"""Layers whose outputs are not [images, ...]: taken where the layout is known, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightsae.activations import DataOptions, Manifest, ModelOptions, extract
from lightsae.activations.loading.online.online_datamodule import OnlineActivationDataModule
from lightsae.errors import LightsaeError
from tests.activations.extraction.extractions import rows_of

STAND_INS = "tests.activations.stand_ins"
# Of an image `Arranged` makes 6 tokens of 8 numbers: as many images, more and fewer.
COUNTS = [6, 40, 2]


def _extract(out: Path, how: str, count: int = 40, **options: Any) -> Manifest:
    model = {"how": how, **options.pop("arguments", {})}
    options = {"tokens": "all", "dtype": "float32", "batch_size": count, **options}
    (manifest,) = extract(
        ModelOptions(module=f"{STAND_INS}.Arranged", arguments=model, prefix_tokens=0),
        DataOptions(dataset=f"{STAND_INS}.Noise", arguments={"count": count}),
        layer=options.pop("layer", "layer"),
        out=str(out),
        **options,
    )
    return manifest


def _assert_same(found: Path, expected: Path) -> None:
    rows, wanted = rows_of(found), rows_of(expected)
    assert rows.keys() == wanted.keys()
    for place, row in rows.items():
        np.testing.assert_allclose(row, wanted[place], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", COUNTS)
def test_a_sequence_before_the_images_is_found(tmp_path: Path, count: int) -> None:
    _extract(tmp_path / "expected", "BTD", count)
    manifest = _extract(tmp_path / "out", "TBD", count, batch_size=4)
    assert (manifest.rows, manifest.d_in) == (6 * count, 8)
    _assert_same(tmp_path / "out", tmp_path / "expected")


@pytest.mark.parametrize("how", ["TBD", "BDT", "BHWD", "DBT"])
def test_a_layout_that_is_declared_is_taken(tmp_path: Path, how: str) -> None:
    _extract(tmp_path / "expected", "BTD")
    manifest = _extract(tmp_path / "out", how, layout=how)
    assert manifest.d_in == 8
    assert manifest.settings["layout"] == how
    _assert_same(tmp_path / "out", tmp_path / "expected")


def test_heads_become_one_row_where_the_layout_says_so(tmp_path: Path) -> None:
    _extract(tmp_path / "expected", "BTD")
    assert _extract(tmp_path / "out", "BCTD", layout="BCTD").d_in == 8
    _assert_same(tmp_path / "out", tmp_path / "expected")


def test_another_layout_is_not_mixed_into_a_folder(tmp_path: Path) -> None:
    _extract(tmp_path, "BTD")
    with pytest.raises(LightsaeError, match="was begun with layout = None, this command has 'BDT'"):
        _extract(tmp_path, "BTD", layout="BDT")


NO_MAP = "which is not known to be a map: say which axis is which with --layout, such as BCHW, "
ONE_AXIS = "images are one axis with windows, heads or tokens; name the block around it instead$"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("BCTD", rf"gives \[3, 2, 6, 4\] for 3 images and .* for 2, {NO_MAP}BHWC, or BCTD for"),
        ("BHWD", rf"gives \[3, 3, 2, 8\] for 3 images .* for 2, {NO_MAP}"),
        ("weights", rf"gives \[3, 2, 6, 6\] for 3 images .* for 2, {NO_MAP}"),
        ("windows", rf"gives \[9, 2, 8\] for 3 images and \[6, 2, 8\] for 2: {ONE_AXIS}"),
        ("rows", rf"gives \[18, 8\] for 3 images and \[12, 8\] for 2: {ONE_AXIS}"),
        ("mean", r"gives \[6, 8\] for 3 images .* for 2: expected a row or more for each image$"),
        ("gram", r"gives \[3, 3\] for 3 images and \[2, 2\] for 2: expected one axis that is the "),
        ("video", r"gives \[3, 1, 3, 2, 8\] .*: say which axis is which with --layout, a letter"),
        ("DB", r"gives \[48, 3\] for 3 images .*: say which axis is which with --layout"),
        ("one", r"gives \[3\] for 3 images and \[2\] for 2: expected features of each image$"),
        ("ids", r"^layer 'layer' gives torch.int64, expected floats$"),
        ("complex", r"^layer 'layer' gives torch.complex64, expected floats$"),
        ("fewer", r"^layer 'layer' gives \[3, 6, 8\] for 40 images, expected BTD with B = 40$"),
        ("random", r"^model: Arranged is random: layer 'layer' gives other values when the same "
         r"images come again; turn off what draws"),
    ],
)  # fmt: skip
def test_an_output_whose_images_are_not_known_is_refused(
    tmp_path: Path, how: str, says: str
) -> None:
    with pytest.raises(LightsaeError, match=says):
        _extract(tmp_path / "out", how)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["", "BTT", "TD", "BT", "BXD", "B T D"])
def test_what_is_no_layout_is_refused_before_a_model_is_loaded(tmp_path: Path, layout: str) -> None:
    with pytest.raises(LightsaeError, match=f"^layout is '{layout}', expected a letter for each"):
        extract(
            ModelOptions(name="none"),
            DataOptions(dataset=f"{STAND_INS}.Noise"),
            layer="a", out=str(tmp_path / "out"), layout=layout,
        )  # fmt: skip


@pytest.mark.parametrize("layout", ["BTD", "TDB", "BCTD"])
def test_a_layout_that_cannot_be_is_refused(tmp_path: Path, layout: str) -> None:
    says = (
        rf"^layout is '{layout}', but layer 'layer' gives \[6, 3, 8\] for 3 images and \[6, 2, 8\] "
        "for 2: expected 3 letters, B at 2$"
    )
    with pytest.raises(LightsaeError, match=says):
        _extract(tmp_path / "out", "TBD", layout=layout)


def test_a_layer_that_runs_twice_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _extract(tmp_path / "out", "twice")
    says = "layer 'layer' runs 2 times in a forward pass: the output of the first is taken"
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layer", "d_in", "rows"),
    [("0", 4, 16), ("1", 4, 16), ("2", 4, 4), ("3", 4, 1)],
    ids=["convolution", "activation", "pool", "flat"],
)
def test_maps_by_the_layers_that_made_them(
    tmp_path: Path, layer: str, d_in: int, rows: int
) -> None:
    """All axes of the first maps are of four: only convolutions tell channels from places."""
    (manifest,) = extract(
        ModelOptions(module=f"{STAND_INS}.Convolutions"),
        DataOptions(dataset=f"{STAND_INS}.Noise"),
        layer=layer, tokens="all", out=str(tmp_path),
    )  # fmt: skip
    assert (manifest.d_in, manifest.rows) == (d_in if layer != "3" else 16, 40 * rows)


# 2 x 2 patches, and a class token before them from pos_drop on.
VIT = ModelOptions(
    name="vit_tiny_patch16_224", pretrained=False,
    arguments={"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2},
)  # fmt: skip
NOISE = DataOptions(dataset=f"{STAND_INS}.Noise")


@pytest.mark.parametrize("tokens", ["patch", "all"])
def test_a_layer_before_the_class_token_has_no_token_less(
    tmp_path: Path, tokens: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    layers: list[str | int | float] = ["patch_embed", "pos_drop"]
    embedded, with_class = extract(VIT, NOISE, layers, str(tmp_path), tokens=tokens)
    assert embedded.rows == 40 * 4
    assert with_class.rows == 40 * (4 if tokens == "patch" else 5)
    says = "layer 'patch_embed' gives a token for each of 4 patches: none is a class or register"
    assert says in capsys.readouterr().err


def test_a_layer_before_the_class_token_has_none(tmp_path: Path) -> None:
    says = "^tokens is 'class', but the layer has no class token; all or pooled take its tokens$"
    with pytest.raises(LightsaeError, match=says):
        extract(VIT, NOISE, "patch_embed", str(tmp_path), tokens="class")
    data = OnlineActivationDataModule(VIT, NOISE, "patch_embed", "patch")
    with pytest.warns(UserWarning, match="none is a class or register token"):
        data.setup()
    assert data.manifest.rows == 40 * 4


def test_prefix_tokens_that_are_given_count_at_every_layer(tmp_path: Path) -> None:
    options = ModelOptions(**{**vars(VIT), "prefix_tokens": 1})
    (manifest,) = extract(options, NOISE, "patch_embed", str(tmp_path), tokens="patch")
    assert manifest.rows == 40 * 3
