"""Time of a step on a roofline: what each part computes and moves, over what a device gives.

    t = o + c sum over parts of max(FLOPs / (ceiling * share), bytes / (bandwidth * share))

with shares that are measured or assumed, and c and o from whole steps of a calibration (1 and 0
without one); c is of all parts but the update, which a calibration times as a step takes it. B
rows, D = d_in, N latents of the rank, s bytes of an element of a product:

    product             2 B D N FLOPs; on a CPU W_enc passes once for each block of rows
    selection           on a CPU s B N bytes; on a GPU what the maxima of groups leave
    penalty             s B N bytes, and 2 B D N FLOPs for its gradient
    decode, values      s B k D bytes each: rows of W_dec, forward and back
    weight gradients    2 s B k D bytes of rows of x and of the residual
    their memory        8 N D bytes; on a CPU a gradient of 32 MiB or more is mapped anew every step
    update              28 bytes a parameter; 20 and 16 where moments are narrower
    AuxK                products over the dead, and dense gradients that are added up
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from lightsae.planning.devices import NOTED, Device
from lightsae.planning.memory import CPU_BLOCK, SCALED
from lightsae.planning.shape import Shape
from lightsae.planning.traffic import Traffic

# Where nothing was measured: of the bandwidth, by a part that gathers rows or reads in pieces.
_ASSUMED = {"select": 0.5, "decode": 0.8, "penalty": 0.7, "update": 0.8, "pass": 0.8,
            "write": 0.9}  # fmt: skip
# The largest that glibc's threshold for mapping memory of its own grows to.
_MAPPED = 32 << 20


class Work(NamedTuple):
    """One part of a step.

    Attributes:
        name: What it is.
        rate: Which efficiency it has: product, pass, select, penalty, decode, write, update.
        flops: Floating-point operations.
        bytes: Moved from and to memory.
    """

    name: str
    rate: str
    flops: float
    bytes: float


class Timed(NamedTuple):
    """A part of a step and its time.

    Attributes:
        name: What it is.
        seconds: How long it takes.
        bound: compute, memory or exchange, whichever it waits for.
    """

    name: str
    seconds: float
    bound: str


class Rates(NamedTuple):
    """What a device gives.

    Attributes:
        ceilings: FLOP/s of "product.float32" and other dtypes, bytes/s of "copy".
        efficiencies: Shares of them: of the product by dtype, of the copy by every other part.
        overhead: Seconds of a step beside its parts.
        factor: Of forward and backward pass over the sum of their parts.
    """

    ceilings: dict[str, float]
    efficiencies: dict[str, float]
    overhead: float = 0.0
    factor: float = 1.0

    def seconds(self, work: Work, product: str, state: str) -> Timed:
        """The time of a part."""
        key = f"product.{product}"
        computed = work.flops / (self.ceilings[key] * self.efficiencies[key]) if work.flops else 0.0
        rate = f"update.{state}" if work.rate == "update" else work.rate
        share = self.efficiencies.get(rate, self.efficiencies["copy"])
        moved = work.bytes / (self.ceilings["copy"] * share)
        bound = "compute" if computed >= moved else "memory"
        return Timed(work.name, max(computed, moved), bound)


def datasheet_rates(device: Device, efficiencies: Mapping[str, float] | None = None) -> Rates:
    """Rates of a GPU from its datasheet.

    Args:
        device: The GPU.
        efficiencies: As a calibration measured them; by default those that are assumed.

    Example:
        >>> from lightsae.planning.devices import device
        >>> rates = datasheet_rates(device("H200"))
        >>> round(rates.ceilings["copy"] * rates.efficiencies["copy"] / 1e12, 2)
        4.3
    """
    ceilings = {f"product.{name}": value for name, value in device.products.items()}
    assumed = dict.fromkeys(ceilings, NOTED["product"])
    assumed["copy"] = NOTED["copy"]
    assumed |= {name: share * NOTED["copy"] for name, share in _ASSUMED.items()}
    states = ("float32", "bfloat16", "int8")
    assumed |= {f"update.{state}": assumed["update"] for state in states}
    return Rates({**ceilings, "copy": device.bandwidth}, {**assumed, **(efficiencies or {})})


def work_of(shape: Shape, latent: int, kind: str) -> tuple[Work, ...]:
    """What a rank computes and moves for one batch, the update apart.

    Example:
        >>> shape = Shape(d_in=1024, d_sae=65536, k=64, batch=16384, product="bfloat16")
        >>> work_of(shape, 1, "gpu")[0].flops == 2 * 16384 * 1024 * 65536
        True
    """
    N, D, B, k, s = -(-shape.d_sae // latent), shape.d_in, shape.batch, shape.k, shape.itemsize
    regularized = shape.regularizer != "none"
    product, pairs = 2.0 * B * D * N, float(B * k * D)
    whole = float(s * B * N)
    # On a CPU rows of decoders and inputs are gathered in float32.
    row = s if kind == "gpu" else 4
    parts = [Work("product", "product", product, 0.0)]
    if kind == "cpu":
        blocks = 1 if regularized else math.ceil(whole / CPU_BLOCK)
        parts += [Work("passes of W_enc", "pass", 0.0, blocks * s * N * D),
                  Work("selection", "select", 0.0, whole)]  # fmt: skip
    else:
        parts.append(Work("selection", "select", 0.0, 2 * s * B * math.sqrt(N * k)))
    if regularized:
        passes = 2.0 if kind == "cpu" or shape.regularizer != "off_support_l1" else 1.0
        parts += [Work("penalty", "penalty", 0.0, passes * whole),
                  Work("its gradient", "product", product, 0.0)]  # fmt: skip
    parts += [
        Work("decode", "decode", 0.0, row * pairs),
        Work("gradient of values", "decode", 0.0, row * pairs),
        Work("weight gradients", "decode", 0.0, 2 * row * pairs),
        Work("their memory", _written(4 * N * D, kind), 0.0, 8.0 * N * D),
    ]
    if shape.k_aux and shape.dead_share:
        dead = shape.dead_share * N
        parts.append(Work("AuxK", "product", 6.0 * B * D * dead, (24 * N + 24 * dead) * D))
    return tuple(parts)


def _written(size: int, kind: str) -> str:
    """The rate of writing a fresh tensor: glibc keeps smaller ones, larger ones are paged in."""
    return "write" if kind == "gpu" or size >= _MAPPED else "copy"


def update_of(shape: Shape, latent: int, kind: str) -> Work:
    """What the optimizer moves."""
    N, D = -(-shape.d_sae // latent), shape.d_in
    moments = {"float32": 16.0, "bfloat16": 8.0, "int8": 4.0 + 32 / SCALED}[shape.state_dtype]
    copies = (4 if kind == "gpu" else 2) * N * D if shape.mixed else 0
    return Work("update", "update", 0.0, (12 + moments) * 2 * N * D + copies)


def step_time(
    shape: Shape, latent: int, kind: str, rates: Rates, sent: tuple[Traffic, ...],
    links: Mapping[str, float],
) -> tuple[Timed, ...]:  # fmt: skip
    """Time of an optimizer step by part; nothing is taken to overlap.

    Args:
        shape: The sizes.
        latent: Ranks that share the dictionary.
        kind: gpu or cpu.
        rates: What the device gives.
        sent: What is exchanged.
        links: Bytes a second over "data" and "latent" ranks.

    Example:
        >>> from lightsae.planning.devices import device
        >>> shape = Shape(d_in=1024, d_sae=65536, k=64, batch=16384, product="bfloat16")
        >>> parts = step_time(shape, 1, "gpu", datasheet_rates(device("H200")), (), {})
        >>> [f"{1e3 * part.seconds:.1f} ms" for part in parts if part.name == "product"]
        ['2.8 ms']
    """
    told = shape.product, shape.state_dtype
    found = []
    for work in work_of(shape, latent, kind):
        one = rates.seconds(work, *told)
        found.append(one._replace(seconds=one.seconds * rates.factor * shape.accumulate))
    found.append(rates.seconds(update_of(shape, latent, kind), *told))
    found += [Timed(each.name, each.bytes / links[each.over], "exchange") for each in sent]
    if rates.overhead:
        found.append(Timed("overhead", rates.overhead * shape.accumulate, "compute"))
    return tuple(found)
