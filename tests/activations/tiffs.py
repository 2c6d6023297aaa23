"""TIFFs that Pillow does not write: of 12 bits, torn, with tags that lead nowhere."""

import io
import struct

import numpy as np
from PIL import Image


def grey_tiff(bits: int, photometric: int, pixels: bytes, width: int) -> bytes:
    """A grey TIFF of one row, not compressed."""
    tags = [(256, width), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 110),
            (278, 1), (279, len(pixels))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries
    return (head + bytes(4)).ljust(110, b"\0") + pixels


def damaged_tiff(*, torn: bool = False, odd_tag: bool = False) -> bytes:
    """A TIFF that Pillow or libtiff complains of."""
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "TIFF", compression="tiff_adobe_deflate")
    data = bytearray(target.getvalue())
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    tags = [struct.unpack_from("<HHII", data, start + 2 + 12 * i) for i in range(count)]
    if torn:
        (strip,) = (value for tag, _, _, value in tags if tag == 273)
        data[strip + 10 : strip + 60] = b"x" * 50
    if odd_tag:
        tags.append((65_001, 4, 500, 9))
    struct.pack_into("<I", data, 4, len(data))
    data += struct.pack("<H", len(tags))
    data += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return bytes(data)
