"""The sizes that are measured, and what each operation needs at least."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Size(NamedTuple):
    """A batch and a dictionary.

    Attributes:
        label: "large" and "paper" have goals, a "swept" size has none; "smoke" is for the CPU.
        B: Samples.
        d_in: Width of a sample.
        d_sae: Latents.
        k: Latents kept per sample.
    """

    label: str
    B: int
    d_in: int
    d_sae: int
    k: int

    def __str__(self) -> str:
        return f"B={self.B} d_in={self.d_in} d_sae={self.d_sae} k={self.k}"

    @property
    def product_flops(self) -> int:
        """2 B d_in d_sae: the encoder product, once."""
        return 2 * self.B * self.d_in * self.d_sae

    @property
    def decode_flops(self) -> int:
        """2 B k d_in."""
        return 2 * self.B * self.k * self.d_in

    def encode_bytes(self, itemsize: int) -> int:
        """x, W_enc and b_enc read once, values and int64 indices written; activations never."""
        read = self.B * self.d_in + self.d_sae * self.d_in + self.d_sae
        return read * itemsize + self._code_bytes(itemsize)

    def decode_bytes(self, itemsize: int) -> int:
        """B k rows of W_dec and the code read, x_hat written in float32."""
        rows = self.B * self.k * self.d_in * itemsize + 4 * self.B * self.d_in
        return rows + self._code_bytes(itemsize)

    def residual_bytes(self, itemsize: int) -> int:
        """The same with x read in float32, and the residual written in two bytes, too."""
        narrow = itemsize if itemsize == 2 else 0
        return self.decode_bytes(itemsize) + self.B * self.d_in * (4 + narrow) + 4 * self.B

    def _code_bytes(self, itemsize: int) -> int:
        return self.B * self.k * (itemsize + 8)


LARGE = Size("large", B=16384, d_in=1024, d_sae=65536, k=64)
PAPER = Size("paper", B=4096, d_in=1024, d_sae=8192, k=32)
SMOKE = Size("smoke", B=2, d_in=8, d_sae=20, k=2)

SWEEP = {
    "B": (1024, 2048, 8192, 16384, 32768),
    "d_in": (384, 768, 2048, 4096),
    "d_sae": (4096, 16384, 32768, 65536),
    "k": (8, 16, 64, 128, 256),
}
SMOKE_SWEEP = {"B": (1,)}


def around(size: Size, axes: Mapping[str, Sequence[int]]) -> list[Size]:
    """Sizes that differ from one in one number, axis by axis."""
    return [
        size._replace(label="swept", **{axis: value})
        for axis, values in axes.items()
        for value in values
    ]
