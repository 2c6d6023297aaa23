import io
import logging
import threading
import warnings
from pathlib import Path

import pytest
from PIL import Image

from lightsae.activations.extraction.image_sources.decoder_messages import (
    decoder_messages,
    warning_line,
)
from tests.activations.tiffs import damaged_tiff


def _read(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB")


def test_a_warning_of_pillow_is_collected_each_time(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        with decoder_messages() as messages:
            _read(damaged_tiff(odd_tag=True))
        assert set(messages) == {"Tag data larger than file. Skipping tag 65001"}
    assert capfd.readouterr().err == ""


def test_a_line_of_libtiff_is_collected(capfd: pytest.CaptureFixture[str]) -> None:
    with decoder_messages() as messages, pytest.raises(OSError, match="decoder error"):
        _read(damaged_tiff(torn=True))
    assert messages == ["ZIPDecode: Decoding error at scanline ..., ..."]
    assert capfd.readouterr().err == ""


def test_what_pillow_logs_is_collected(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with decoder_messages() as messages:
        logging.getLogger("PIL.TiffImagePlugin").error("More samples than %d", 4)
    assert messages == ["More samples than 4"]
    assert capfd.readouterr().err == ""


def test_what_other_threads_warn_of_is_shown_as_before(capfd: pytest.CaptureFixture[str]) -> None:
    def other() -> None:
        warnings.warn("of no image", UserWarning, stacklevel=1)
        with pytest.raises(OSError, match="decoder error"):
            _read(damaged_tiff(torn=True))

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with decoder_messages() as messages:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        other()
    assert messages == []
    assert [str(warning.message) for warning in shown] == ["of no image"] * 2
    assert capfd.readouterr().err.count("ZIPDecode: Decoding error at scanline 0") == 2


def test_nothing_said_is_no_line(tmp_path: Path) -> None:
    assert warning_line("a.tif", []) == ""
    assert warning_line("a.tif", ["torn\nthere"]) == "a.tif: was read with a warning: torn; there"
