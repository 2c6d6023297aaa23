"""Tile sizes of the kernels, per architecture and width of an element.

Every row compiles without a spill for its architecture (benchmarks/resources.py). They were chosen
by register count; none has been timed.
"""

from typing import NamedTuple

import torch


class ProductConfig(NamedTuple):
    """Tiles of the product, in elements, and how a program runs them.

    Attributes:
        block_b: Rows of x.
        block_n: Latents.
        block_d: Columns of one step of the product.
        super_rows: Row blocks that share latents in L2.
        warps: Warps of a program.
        stages: Steps of the product in flight.
    """

    block_b: int
    block_n: int
    block_d: int
    super_rows: int
    warps: int
    stages: int


# Compute capability, bytes of an input element; the first is used, the others are for tuning.
PRODUCT: dict[tuple[int, int], tuple[ProductConfig, ...]] = {
    (80, 2): (
        ProductConfig(128, 128, 64, 8, 8, 3),
        ProductConfig(128, 128, 32, 8, 8, 4),
        ProductConfig(64, 128, 64, 8, 8, 4),
    ),
    (80, 4): (ProductConfig(64, 64, 32, 8, 8, 3), ProductConfig(64, 128, 16, 8, 8, 3)),
    (90, 2): (
        ProductConfig(128, 256, 64, 8, 8, 3),
        ProductConfig(128, 256, 64, 8, 8, 4),
        ProductConfig(128, 128, 64, 8, 8, 4),
        ProductConfig(128, 128, 64, 8, 4, 4),
    ),
    (90, 4): (ProductConfig(64, 64, 32, 8, 8, 3), ProductConfig(64, 128, 16, 8, 8, 3)),
    (100, 2): (
        ProductConfig(128, 128, 64, 8, 8, 4),
        ProductConfig(128, 128, 128, 8, 8, 3),
        ProductConfig(128, 128, 64, 16, 8, 4),
    ),
    (100, 4): (ProductConfig(64, 64, 32, 8, 8, 3), ProductConfig(64, 128, 16, 8, 8, 3)),
}
# Rows that do not begin at 16 bytes are read word by word and fill the registers sooner.
RAGGED = ProductConfig(64, 64, 32, 8, 8, 2)
# The gradient of a regularizer keeps its left operand in registers: latents, columns, rows.
GRADIENT: dict[tuple[int, int], ProductConfig] = {
    (80, 2): ProductConfig(64, 128, 64, 1, 8, 3),
    (80, 4): ProductConfig(64, 64, 16, 1, 8, 2),
    (90, 2): ProductConfig(128, 128, 64, 1, 8, 3),
    (90, 4): ProductConfig(64, 64, 32, 1, 8, 2),
    (100, 2): ProductConfig(128, 128, 64, 1, 8, 3),
    (100, 4): ProductConfig(64, 64, 32, 1, 8, 2),
}
# The interpreter pays by the program: larger tiles are faster, small ones test more edges.
INTERPRETED = ProductConfig(16, 128, 32, 2, 4, 1)
_INTERPRETED_ROWS = 16


def product_configs(
    device: torch.device, dtype: torch.dtype, d_in: int
) -> tuple[ProductConfig, ...]:
    """Configurations for a device, the preferred one first."""
    if device.type == "cpu":
        return (INTERPRETED,)
    if d_in % 16:
        return (RAGGED,)
    return PRODUCT[_architecture(device), dtype.itemsize]


def gradient_config(device: torch.device, dtype: torch.dtype, d_in: int) -> ProductConfig:
    """Tiles of a regularizer's gradient: block_b latents, block_n columns, block_d rows a step."""
    if device.type == "cpu":
        return INTERPRETED
    if d_in % 16:
        return RAGGED
    return GRADIENT[_architecture(device), dtype.itemsize]


def _architecture(device: torch.device) -> int:
    """The newest architecture of the tables that is not newer than the device's."""
    major, minor = torch.cuda.get_device_capability(device)
    return max(arch for arch, _ in PRODUCT if arch <= 10 * major + minor)


def programs(elements: int, device: torch.device, per_warp: int = 256) -> tuple[int, int]:
    """Rows and warps of a program that holds `elements` of a row in registers.

    Example:
        >>> programs(2048, torch.device("cuda"))
        (1, 8)
    """
    rows = _INTERPRETED_ROWS if device.type == "cpu" else 1
    return rows, min(16, max(1, elements // per_warp))
