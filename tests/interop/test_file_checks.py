"""Tensors and settings of a file against what its format promises."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import checked, setting

SHAPES: dict[str, tuple[int | str, ...]] = {
    "W_enc": ("d_in", "d_sae"),
    "b_enc": ("d_sae",),
    "threshold": (),
}
PATH = Path("sae.pt")


def _tensors(**other: Any) -> dict[str, Any]:
    tensors = {"W_enc": torch.ones(2, 6), "b_enc": torch.ones(6), "threshold": torch.ones(())}
    return tensors | other


def test_what_is_promised_is_given_back() -> None:
    found = checked(_tensors(more=3), PATH, SHAPES, ignored=("more",))
    assert list(found) == list(SHAPES)
    assert list(checked({}, PATH, {"b": ("d_in",)}, optional=("b",))) == []


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([1], "sae.pt holds a list, expected tensors by name"),
        (_tensors(W_skip=torch.ones(2)), "unknown tensor 'W_skip', expected W_enc, b_enc"),
        ({"W_enc": torch.ones(2, 6)}, "tensor 'b_enc' is missing"),
        (_tensors(b_enc=[1.0]), "tensor 'b_enc' is a list, expected a tensor"),
        (_tensors(b_enc=torch.ones(5)), r"'b_enc' has shape \[5\], expected \[d_sae = 6\]"),
        (_tensors(W_enc=torch.ones(12)), r"'W_enc' has shape \[12\], expected \[d_in, d_sae\]"),
        (_tensors(threshold=torch.ones(6)), r"'threshold' has shape \[6\], expected \[\]"),
        (_tensors(W_enc=torch.ones(0, 6)), "tensor 'W_enc' is empty"),
        (
            _tensors(b_enc=torch.ones(6, dtype=torch.int64)),
            "'b_enc' is of torch.int64, expected one",
        ),
        (_tensors(b_enc=torch.ones(6).to_sparse()), "tensor 'b_enc' is not a dense tensor"),
        (_tensors(b_enc=torch.ones(6, device="meta")), "tensor 'b_enc' is not a dense tensor"),
        (_tensors(b_enc=torch.ones(1).expand(6)), "'b_enc' claims more numbers than it holds"),
        (_tensors(b_enc=torch.full((6,), torch.inf)), "'b_enc' has NaN or infinite values"),
    ],
)
def test_what_is_not_as_promised_is_named(found: Any, says: str) -> None:
    with pytest.raises(LightsaeError, match=says):
        checked(found, PATH, SHAPES)


def test_sizes_of_the_configuration_count() -> None:
    with pytest.raises(LightsaeError, match=r"shape \[2, 6\], expected \[d_in = 3, d_sae = 6\]"):
        checked(_tensors(), PATH, SHAPES, sizes={"d_in": 3, "d_sae": 6})


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        (None, int, "'k' is missing, expected int"),
        (True, int, "'k' is True, expected int"),
        (0, int, "'k' is 0, expected at least 1"),
        ("3", int, "'k' is '3', expected int"),
        (1, bool, "'k' is 1, expected bool"),
    ],
)
def test_settings_of_another_kind_are_named(value: Any, kind: type, says: str) -> None:
    with pytest.raises(LightsaeError, match=f"cfg.json: {says}"):
        setting({"k": value}, "k", kind, Path("cfg.json"))


def test_settings_have_defaults_and_whole_numbers_are_numbers() -> None:
    assert setting({}, "k", int, PATH, 5) == 5
    found = setting({"threshold": 2}, "threshold", float, PATH)
    assert (found, type(found)) == (2.0, float)
