"""An extraction: the rows it writes, their order, and what it refuses before it begins."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightsae.activations import (
    ActivationDataModule,
    DataOptions,
    LayerTap,
    Manifest,
    ModelOptions,
    ShardSet,
    extract,
)
from lightsae.activations.loading.label_mixing import in_random_order
from lightsae.errors import LightsaeError
from tests.activations.stand_ins import Noise

from .extractions import STAND_INS, contents, extract_folder, extract_noise, rows_of, tiny_model


@pytest.mark.parametrize(
    ("tokens", "layer", "positions"),
    [
        ("class", "tokens", [0]),
        ("patch", "tokens", [1, 2, 3, 4]),
        ("all", "tokens", [0, 1, 2, 3, 4]),
        ("pooled", "tokens", [0]),
        ("patch", "patches", [0, 1, 2, 3]),
        ("class", "head", [0]),
    ],
)
def test_rows_are_the_layers_tokens(
    tmp_path: Path, tokens: Any, layer: str, positions: list[int]
) -> None:
    manifest = extract_noise(tmp_path, 13, tokens=tokens, layer=layer)
    assert manifest.rows == 13 * len(positions)
    assert (manifest.layer, manifest.tokens, manifest.has_labels) == (layer, tokens, True)
    rows = rows_of(tmp_path)
    tap = LayerTap(tiny_model(), layer)
    for sample in (0, 7, 12):
        output = tap(Noise()[sample][0][None])
        if tokens == "pooled":
            output = output[:, 1:].mean(1, keepdim=True)
        if output.ndim == 4:
            output = output.flatten(2).transpose(1, 2)
        output = output.view(-1, output.shape[-1])
        for position in positions:
            expected = output[min(position, len(output) - 1)].numpy()
            np.testing.assert_allclose(rows[sample, position], expected, rtol=1e-5, atol=1e-6)


def test_labels_follow_their_samples(tmp_path: Path) -> None:
    manifest = extract_noise(tmp_path)
    assert manifest.classes == ["a", "b", "c", "d"]
    shards = ShardSet(tmp_path)
    for chunk in range(len(shards.chunks)):
        sample, _, label = shards.read_index(chunk)
        assert (label == sample % 4).all()
    shards.close()


def test_shards_hold_whole_forward_passes(tmp_path: Path) -> None:
    assert [entry.rows for entry in extract_noise(tmp_path).shards] == [72, 72, 16]


def test_a_random_order_mixes_the_labels_of_stored_batches(tmp_path: Path) -> None:
    extract_noise(tmp_path, 1200, tokens="class", batch_size=300)
    shards = ShardSet(tmp_path)
    labels = np.concatenate([shards.read_index(i)[2] for i in range(len(shards.chunks))])
    shards.close()
    counts = np.stack([np.bincount(part, minlength=4) for part in np.split(labels, 12)])
    statistic = ((counts - 25) ** 2 / 25).sum()
    assert statistic / (11 * 3) < 1.6


def test_an_extraction_is_known_to_be_in_a_random_order(tmp_path: Path) -> None:
    assert in_random_order(extract_noise(tmp_path))


def test_copies_of_a_sample_stay_in_its_split(tmp_path: Path) -> None:
    extract_noise(tmp_path, 40, copies=4)
    rows = rows_of(tmp_path)
    assert {sample for sample, _ in rows} == set(range(10))
    assert sorted(t for s, t in rows if s == 3) == [
        c * 5 + t for c in range(4) for t in (1, 2, 3, 4)
    ]
    data = ActivationDataModule(str(tmp_path), val_fraction=0.2, test_fraction=0.2, batch_size=7)
    seen = [
        {int(i) for batch in loader for i in batch.sample_index}
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ]
    data.teardown()
    assert [len(samples) for samples in seen] == [6, 2, 2]
    assert len(set.union(*seen)) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "^batch_size is 0, expected at least 1"),
        ({"rows_per_shard": 0}, "^rows_per_shard is 0, expected at least 1"),
        ({"workers": -1}, "^workers is -1, expected at least 0"),
        ({"seed": -1}, "^seed is -1, expected at least 0"),
        ({"device": "nowhere"}, "device 'nowhere' cannot be used"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"tokens": "cls"}, "tokens is 'cls'"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        extract_noise(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_workers_make_the_same_shards_of_a_folder(tmp_path: Path, pictures: Path) -> None:
    (pictures / "b" / "1.png").write_bytes(b"broken")
    for workers in (0, 2):
        extract_folder(pictures, tmp_path / str(workers), workers=workers, on_error="skip")
    assert Manifest.load(tmp_path / "0").rows == 13
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


@pytest.mark.slow
def test_workers_make_the_same_shards_of_a_dataset(tmp_path: Path) -> None:
    for workers in (0, 2):
        extract_noise(tmp_path / str(workers), workers=workers, copies=4)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


@pytest.mark.parametrize("out", ["file", "file/below", "file/far/below"])
def test_a_folder_that_cannot_be_made_is_refused_first(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("mine")
    message = f"^{tmp_path / out}: {tmp_path}/file is a file, expected a folder$"
    with pytest.raises(LightsaeError, match=message):
        extract_noise(tmp_path / out, layer="no such layer")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_may_not_be_written_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    message = f"^{tmp_path}/new/out: no permission to write in {tmp_path}$"
    with pytest.raises(LightsaeError, match=message):
        extract_noise(tmp_path / "new" / "out", layer="no such layer")


def test_a_name_that_the_system_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=r"x: cannot be written: File name too long$"):
        extract_noise(tmp_path / ("x" * 300))


def test_a_complete_folder_need_not_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract_noise(tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert extract_noise(tmp_path) == first


def test_an_out_of_nothing_is_refused() -> None:
    with pytest.raises(LightsaeError, match=r"^out is '', expected a folder"):
        extract(ModelOptions(), DataOptions(), layer="tokens", out="")


def test_prefix_tokens_count_where_the_model_does_not_say_them(tmp_path: Path) -> None:
    def run_with(prefix: int) -> Manifest:
        return extract(
            ModelOptions(module=f"{STAND_INS}.TinyNet", prefix_tokens=prefix),
            DataOptions(dataset=f"{STAND_INS}.Noise", arguments={"count": 6}),
            layer="tokens", tokens="patch", out=str(tmp_path),
        )[0]  # fmt: skip

    assert run_with(2).rows == 6 * 3
    assert {token for _, token in rows_of(tmp_path)} == {2, 3, 4}
    with pytest.raises(LightsaeError, match="prefix_tokens = 2, this command has 1"):
        run_with(1)


def test_half_precision_changes_little(tmp_path: Path) -> None:
    extract_noise(tmp_path / "a", 8)
    extract_noise(tmp_path / "b", 8, compute="bfloat16")
    first, second = rows_of(tmp_path / "a"), rows_of(tmp_path / "b")
    assert first.keys() == second.keys()
    assert max(np.abs(first[key] - second[key]).max() for key in first) < 0.02


def test_names_are_told_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pictures: Path
) -> None:
    name = "[bold]" + "x" * 100 + "[/red].png"
    (pictures / "a" / name).parent.mkdir()
    (pictures / "a" / name).write_bytes(b"no image")
    (pictures / "a" / "two\nlines.png").write_bytes(b"no image")
    extract_folder(pictures, tmp_path / "out[/b]", on_error="skip")
    lines = capsys.readouterr().err.splitlines()
    assert any("two\\nlines.png is not a readable image" in line for line in lines)
    assert any(name in line and line.startswith("skipped: ") for line in lines)
    assert any(line.startswith(f"{tmp_path}/out[/b]: 14 rows") for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"tokens_per_image": 0}, "tokens_per_image is 0, expected at least 1"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"data": DataOptions()}, "data: give one of"),
        ({"data": DataOptions(folder="nowhere")}, "data.folder: there is no folder nowhere"),
    ],
)
def test_what_is_cheap_to_check_is_checked_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any, message: str
) -> None:
    monkeypatch.setattr("lightsae.activations.extraction.models.load_model", None)
    options = {"data": DataOptions(dataset=f"{STAND_INS}.Noise"), **options}
    with pytest.raises(LightsaeError, match=message):
        extract(ModelOptions(name="vit"), layer="norm", out=str(tmp_path / "out"), **options)
