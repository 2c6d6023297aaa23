"""Images that cannot be read or stored: named, or skipped, counted and listed."""

import multiprocessing
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightsae.activations import (
    Extraction,
    LayerTap,
)
from lightsae.activations.extraction.images.image_set import DatasetImages
from lightsae.errors import LightsaeError
from tests.activations.stand_ins import Noise
from tests.activations.tiffs import damaged_tiff

from .extractions import extract_folder, extract_noise, rows_of, tiny_model


def test_an_unreadable_image_ends_the_run_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(
        LightsaeError, match=r"item 11 of .*Noise.* is unreadable: OSError: broken file \(on"
    ):
        extract_noise(tmp_path, bad=(11,))


def test_unreadable_images_are_skipped_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LightsaeError, match="item 11"):
        extract_noise(tmp_path, bad=(11, 30))
    manifest = extract_noise(tmp_path, bad=(11, 30), on_error="skip")
    assert manifest.rows == 38 * 4
    assert len(manifest.progress["skipped"]) == 2
    assert "2 images skipped" in " ".join(capsys.readouterr().err.split())
    assert not {11, 30} & {sample for sample, _ in rows_of(tmp_path)}


def test_of_one_thing_the_singular_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract_noise(tmp_path, bad=(11,), on_error="skip")
    assert "1 image skipped" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_warnings_of_images_are_a_line_each_for_the_first_and_a_count(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(8):
        (tmp_path / "in" / f"{number}.tif").write_bytes(damaged_tiff(odd_tag=number > 0))
    extract_folder(tmp_path / "in", tmp_path / "out", workers=workers)
    lines = capfd.readouterr().err.splitlines()
    told = [line for line in lines if " read with " in line]
    assert len(told) == 6
    for line in told[:-1]:
        assert re.match(rf"{tmp_path}/in/\d.tif: was read with \d warnings, the first: Tag", line)
    assert told[-1] == "7 images were read with warnings, of which the first 5 are told"
    assert not [line for line in lines if "TiffImagePlugin" in line]


def test_only_unreadable_images_are_an_error(tmp_path: Path) -> None:
    extraction = Extraction(
        tap=LayerTap(tiny_model(), "tokens"),
        images=_AllBad(Noise(5), None, "noise"),
        out=tmp_path,
        model_name="tiny",
        on_error="skip",
    )
    with pytest.raises(LightsaeError, match="none of the 5 images gives rows: bad"):
        extraction.run()


class _AllBad(DatasetImages):
    def load(self, position: int) -> Any:
        return super().load(position)._replace(image=None, problem="bad")


def test_float16_overflow_names_the_sample(tmp_path: Path) -> None:
    with pytest.raises(
        LightsaeError, match=r"sample .*, token .*, layer 'tokens': .* use dtype fl"
    ):
        extract_noise(tmp_path, dtype="float16", scale=1e6)
    assert extract_noise(tmp_path, dtype="bfloat16", scale=1e6).rows == 160


def test_an_image_that_overflows_is_named_with_what_to_do(tmp_path: Path) -> None:
    says = (
        r"^item 11 of .*Noise.*: sample 11, token [1-4], layer 'tokens': activation \[\d\] is .*, "
        r"too large for float16: use dtype float32 or bfloat16 \(on_error skip goes on without "
        r"it\)$"
    )
    with pytest.raises(LightsaeError, match=says):
        extract_noise(tmp_path, dtype="float16", large=(11,))


def test_images_that_overflow_are_skipped_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"dtype": "float16", "on_error": "skip", "bad": (3,)}
    manifest = extract_noise(tmp_path / "out", large=(11, 30), **options)
    rows = rows_of(tmp_path / "out")
    assert {sample for sample, _ in rows} == set(range(40)) - {3, 11, 30}
    assert manifest.rows == len(rows) == 37 * 4
    skipped = sorted(manifest.progress["skipped"])
    assert [line.split(" of ")[0] for line in skipped] == ["item 11", "item 3", "item 30"]
    for number in (0, 2):
        assert skipped[number].endswith("too large for float16: use dtype float32 or bfloat16")
        assert f"skipped: {skipped[number]}" in capsys.readouterr().err or number
    whole = extract_noise(tmp_path / "whole", **options)
    assert whole.rows == 39 * 4
    for place, row in rows_of(tmp_path / "whole").items():
        if place in rows:
            np.testing.assert_array_equal(row, rows[place])


def test_images_that_all_overflow_are_an_error(tmp_path: Path) -> None:
    says = r"^data: none of the 5 images gives rows: item . of .* too large for float16"
    with pytest.raises(LightsaeError, match=says):
        extract_noise(tmp_path, 5, dtype="float16", on_error="skip", large=tuple(range(5)))


def test_an_image_that_overflows_is_named_by_its_file(tmp_path: Path, pictures: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(LightsaeError, match=rf"^{pictures}/[ab]/\d+.png: sample \d+, token"):
        extract_folder(pictures, out, std=[1e-6] * 3, dtype="float16")


@pytest.mark.slow
def test_an_unreadable_image_in_a_worker_ends_the_run_with_its_name(
    tmp_path: Path, pictures: Path
) -> None:
    broken = pictures / "b" / "1.png"
    broken.write_bytes(b"broken")
    with pytest.raises(LightsaeError, match=f"^{broken} is not a readable image: ") as caught:
        extract_folder(pictures, tmp_path / "out", workers=2)
    assert not multiprocessing.active_children()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
