"""Named tuples as JSON and back."""

import json
import math
from typing import NamedTuple

import pytest

from lightsae.errors import LightsaeError
from lightsae.typed_json import plain, typed


class Inner(NamedTuple):
    share: float
    pair: tuple[int, str] | None = None


class Outer(NamedTuple):
    name: str
    done: bool
    inner: Inner
    many: tuple[Inner, ...]
    table: dict[str, tuple[float, ...]]


VALUE = Outer("a", True, Inner(0.5, (1, "b")), (Inner(math.nan), Inner(2.0)), {"c": (1.0, 2.5)})


def test_what_is_written_comes_back() -> None:
    text = json.dumps(plain(VALUE), allow_nan=False)
    assert repr(typed(Outer, json.loads(text), "x.json")) == repr(VALUE)


def test_integers_are_floats_where_those_are_expected() -> None:
    assert typed(Inner, {"share": 1, "pair": None}, "x.json") == Inner(1.0)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("name", 3, "name is 3, expected str"),
        ("done", 1, "done is 1, expected bool"),
        ("inner", [], r"inner is \[\], expected Inner"),
        ("inner.share", "x" * 90, "inner.share is 'x{39}..., expected float"),
        ("inner.share", True, "inner.share is True, expected float"),
        ("inner.pair", [1], "inner.pair has 1 items, expected 2"),
        ("inner.pair", [1.5, "b"], "inner.pair.0 is 1.5, expected int"),
        ("many", {}, r"many is {}, expected tuple"),
        ("many.1.share", 1e999, "many.1.share is beyond float64"),
        ("table", [], r"table is \[\], expected dict"),
        ("table.c.1", "2", "table.c.1 is '2', expected float"),
        ("table.c.0", 10**400, "table.c.0 is beyond float64"),
        ("inner.more", 1, "inner.more is unknown"),
    ],
)
def test_what_is_not_of_the_type_is_refused_by_its_key(path: str, value: object, told: str) -> None:
    content = plain(VALUE)
    place, *keys = content, *path.split(".")
    for key in keys[:-1]:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(keys[-1]) if isinstance(place, list) else keys[-1]] = value
    with pytest.raises(LightsaeError, match=f"^x.json: {told}"):
        typed(Outer, content, "x.json")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(LightsaeError, match=r"^x.json: inner.share is missing"):
        typed(Outer, {**plain(VALUE), "inner": {}}, "x.json")
    with pytest.raises(LightsaeError, match=r"^x.json: it is 3, expected Outer"):
        typed(Outer, 3, "x.json")
