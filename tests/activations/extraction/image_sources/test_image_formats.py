import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, UnidentifiedImageError

from lightsae.activations.extraction.image_sources.image_formats import (
    _pillow,
    image_endings,
    left_out,
    open_image,
)

READ = [".jpg", ".JPEG", ".jfif", ".jpe", ".png", ".apng", ".jp2", ".j2k", ".webp", ".tif", ".gif",
        ".tga", ".pbm", ".bmp", ".qoi"]  # fmt: skip
UNREAD = [".txt", ".eps", ".ps", ".pdf", ".wmf", ".emf", ".mpg", ".h5", ".grib", ".bufr", ".ttf"]


@pytest.mark.parametrize("ending", READ)
def test_what_pillow_reads_is_an_image(tmp_path: Path, ending: str) -> None:
    Image.new("1" if ending == ".pbm" else "RGB", (8, 8)).save(tmp_path / f"a{ending}")
    assert ending.lower() in image_endings()
    with open_image(tmp_path / f"a{ending}") as image:
        assert image.size == (8, 8)


@pytest.mark.parametrize("ending", UNREAD)
def test_what_is_no_raster_image_or_is_read_by_another_program_is_none(ending: str) -> None:
    assert ending not in image_endings()


def test_a_file_is_opened_by_no_other_program_whatever_its_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    with Image.open(path) as image:
        assert image.format == "EPS"
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program"))
    with pytest.raises(UnidentifiedImageError), open_image(path) as image:
        image.load()


def test_what_a_plugin_registers_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(file: Any, _: Any) -> Any:
        file.close()
        return Image.new("RGB", (3, 5))

    heif = ModuleType("pillow_heif")

    def register() -> None:
        monkeypatch.setattr(Image, "ID", [*Image.ID, "HEIF"])
        monkeypatch.setitem(Image.OPEN, "HEIF", (opened, lambda prefix: prefix == b"heif"))
        monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")

    heif.register_heif_opener = register  # type: ignore[attr-defined]
    assert ".heic" not in image_endings()
    monkeypatch.setitem(sys.modules, "pillow_heif", heif)
    _pillow.cache_clear()
    assert ".heic" in image_endings()
    (tmp_path / "a.heic").write_bytes(b"heif")
    assert open_image(tmp_path / "a.heic").size == (3, 5)


def test_what_is_left_out_is_told_by_ending_and_number() -> None:
    names = ["1.txt", "b/2.TXT", "c.heic", "README", *(f"x.{i:02}" for i in range(12))]
    said = left_out(names)
    assert said.startswith("16 files are no images that Pillow reads and are left out: 2 .txt, 1 ")
    assert said.endswith(", 9 of other endings")
    assert "1 without ending" in left_out(["README"])
