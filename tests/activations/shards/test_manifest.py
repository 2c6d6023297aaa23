import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from lightsae.activations import Manifest
from lightsae.activations.shards.manifest import MANIFEST_NAME
from lightsae.errors import LightsaeError


def _json(**changes: Any) -> str:
    manifest = json.loads(Manifest(d_in=2, dtype="float16").to_json())
    del manifest["checksum"]
    shard = {"name": "shard-00000.h5", "rows": 3, "digest": "0" * 16}
    manifest |= {"shards": [shard], "rows": 3, "mean": [0.0, 1.0], "scale": [1.0, 1.0]}
    rows = changes.get("rows", 3)
    manifest["norms"] = {"-3": rows} if rows > 0 else {}
    return json.dumps(manifest | changes)


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": [value]} if depth % 2 else {"a": value}
    return value


@pytest.mark.parametrize("complete", [True, False])
def test_only_a_folder_with_rows_is_complete(complete: bool) -> None:
    text = _json(complete=complete, shards=[], rows=0, mean=[], scale=[])
    says = r"^here: complete is true, expected false while shards lists none$"
    with pytest.raises(LightsaeError, match=says) if complete else nullcontext():
        Manifest.from_json(text, "here")


def test_integers_among_the_statistics_are_numbers_like_others() -> None:
    manifest = Manifest.from_json(_json(mean=[10**30, 1], scale=[2, 1]), "here")
    assert [type(x) for x in manifest.mean + manifest.scale] == [float] * 4


def test_settings_may_be_nested() -> None:
    settings = _nested(48)
    assert Manifest.from_json(_json(settings=settings), "here").settings == settings


def test_a_manifest_survives_json() -> None:
    manifest = Manifest.from_json(_json(), "m")
    assert Manifest.from_json(manifest.to_json(), "m") == manifest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("d_in", 3),
        ("model", "another"),
        ("mean", [0.0, 1.0000000000000002]),
        ("settings", {"a": 1}),
    ],
)
def test_an_altered_manifest_is_told_unless_that_was_meant(field: str, value: Any) -> None:
    manifest = Manifest.from_json(_json(mean=[0.0, 1.0]), "m")
    data = json.loads(manifest.to_json()) | {field: value}
    if field == "d_in":
        data |= {"mean": [0.0] * 3, "scale": [1.0] * 3}
    says = '^here: was altered after it was written; if that was meant, remove its line "checksum"$'
    with pytest.raises(LightsaeError, match=says):
        Manifest.from_json(json.dumps(data), "here")
    del data["checksum"]
    assert getattr(Manifest.from_json(json.dumps(data), "here"), field) == value


def test_json_nested_without_end_is_one_line() -> None:
    with pytest.raises(LightsaeError, match=r"^m: not valid JSON: .*recursion"):
        Manifest.from_json("[" * 100_000, "m")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("d_in", 0),
        ("d_in", True),
        ("d_in", "8"),
        ("dtype", "float64"),
        ("dtype", None),
        ("model", 3),
        ("has_labels", 1),
        ("classes", [1]),
        ("complete", "yes"),
        ("rows", 4),
        ("rows", -1),
        ("mean", [0.0]),
        ("mean", [0.0, None]),
        ("scale", [0.0, True]),
        ("norms", {"0": 4}),
        ("norms", {"0": 4, "1": -1}),
        ("norms", {"about 2": 3}),
        ("shards", {}),
        ("settings", []),
        ("progress", 1),
        ("format_version", 2),
        ("unheard_of", 1),
        ("d_in", 10**30),
        ("rows", 10**30),
        ("mean", [0.0, 10**400]),
        ("scale", [-(10**400), 1.0]),
        ("norms", {"999999": 3}),
        ("norms", {"-2385": 3}),
        ("norms", {"0": 10**30}),
        ("model", "a\ud800"),
        ("layer", "\udfff"),
        ("settings", _nested(800)),
        ("progress", _nested(51)),
        ("model", _nested(800)),
        ("format_version", _nested(800)),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(LightsaeError, match=rf"^here: .*{field}"):
        Manifest.from_json(_json(**{field: value}), "here")


@pytest.mark.parametrize("field", [name for name in json.loads(_json()) if name != "x"])
def test_a_missing_field_is_named(field: str) -> None:
    data = json.loads(_json())
    del data[field]
    with pytest.raises(LightsaeError, match=f"{field} is missing"):
        Manifest.from_json(json.dumps(data), "here")


@pytest.mark.parametrize(
    "name",
    ["../shard-00000.h5", "/etc/passwd", "shard-00000.h5/../../x", "shard-1.h5", "", "a\0b", 7,
     "shard-00000.h5\n", "..\\shard-00000.h5", "shard-\u0660\u0660\u0660\u0660\u0660.h5"],
)  # fmt: skip
def test_a_shard_name_cannot_leave_the_folder(name: Any) -> None:
    shard = {"name": name, "rows": 3, "digest": "0" * 16}
    with pytest.raises(LightsaeError, match=r"shards\[0\].name .* expected a file of this folder"):
        Manifest.from_json(_json(shards=[shard]), "here")


@pytest.mark.parametrize(
    "shard",
    [
        {"name": "shard-00000.h5", "rows": 0, "digest": "0" * 16},
        {"name": "shard-00000.h5", "rows": 3, "digest": "xyz"},
        {"name": "shard-00000.h5", "rows": 3},
        "shard-00000.h5",
    ],
)
def test_a_wrong_shard_entry_is_named(shard: Any) -> None:
    with pytest.raises(LightsaeError, match=r"shards\[0\]"):
        Manifest.from_json(_json(shards=[shard]), "here")


def test_a_shard_is_listed_once() -> None:
    shard = {"name": "shard-00000.h5", "rows": 3, "digest": "0" * 16}
    with pytest.raises(LightsaeError, match="twice"):
        Manifest.from_json(_json(shards=[shard, shard], rows=6), "here")


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"d_in": NaN}'])
def test_text_that_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(LightsaeError, match=r"^here: "):
        Manifest.from_json(text, "here")


def test_not_a_number_is_not_finite() -> None:
    with pytest.raises(LightsaeError, match="mean"):
        Manifest.from_json(_json(mean=[0.0, float("nan")]), "here")


def test_a_missing_folder_and_an_empty_one_say_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=r"nowhere: no such folder .* `lightsae extract`"):
        Manifest.load(tmp_path / "nowhere")
    with pytest.raises(LightsaeError, match=f"has no {MANIFEST_NAME}; `lightsae extract`"):
        Manifest.load(tmp_path)


def test_a_manifest_of_random_bytes_is_named(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LightsaeError, match=MANIFEST_NAME):
        Manifest.load(tmp_path)


def test_a_digest_is_the_same_today_and_tomorrow() -> None:
    assert Manifest.from_json(_json(), "m").digest() == "b1125a690cd6185f"


@pytest.mark.parametrize(
    "changes",
    [
        {"d_in": 1, "mean": [0.0], "scale": [1.0]},
        {"dtype": "float32"},
        {"layer": "blocks.1"},
        {"tokens": "class"},
        {"weights_hash": "1" * 16},
        {"shards": [{"name": "shard-00001.h5", "rows": 3, "digest": "0" * 16}]},
        {"shards": [{"name": "shard-00000.h5", "rows": 4, "digest": "0" * 16}], "rows": 4},
        {"shards": [{"name": "shard-00000.h5", "rows": 3, "digest": "1" * 16}]},
        {"shards": [], "rows": 0, "mean": [], "scale": []},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_digest_tells_what_the_rows_are(changes: dict[str, Any]) -> None:
    first, other = (Manifest.from_json(text, "m") for text in (_json(), _json(**changes)))
    assert first.digest() != other.digest()


def test_a_digest_does_not_depend_on_how_the_rows_came_about() -> None:
    other = _json(settings={"workers": 3}, progress={"images": 3}, complete=True, model="vit")
    assert Manifest.from_json(other, "m").digest() == Manifest.from_json(_json(), "m").digest()
