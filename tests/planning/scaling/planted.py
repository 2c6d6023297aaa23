"""Runs whose losses follow a law that is known."""

import math
from collections.abc import Sequence

import numpy as np

from lightsae.planning.scaling import Run

LAW = {
    "alpha": -0.5, "beta_k": 0.26, "beta_n": -0.17, "gamma": -0.042, "zeta": -2.3, "eta": -0.085,
}  # fmt: skip
SIZES, KS = (256, 1024, 4096, 16384, 65536), (8, 32, 128)


def joint_loss(n: float, k: float) -> float:
    """The law of arXiv 2406.04093, section 3.1.3."""
    at = LAW
    log_n, log_k = math.log(n), math.log(k)
    falls = at["alpha"] + at["beta_k"] * log_k + at["beta_n"] * log_n + at["gamma"] * log_k * log_n
    return math.exp(falls) + math.exp(at["zeta"] + at["eta"] * log_k)


def planted(
    seed: int = 0,
    noise: float = 0.01,
    sizes: Sequence[int] = SIZES,
    ks: Sequence[int] = KS,
    tokens: Sequence[int] = (1_000_000,),
) -> list[Run]:
    """Two seeds of each setting; what tokens add is 3 T^-0.4 where there are several lengths."""
    generator = np.random.default_rng(seed)
    runs = []
    for n in sizes:
        for k in ks:
            for rows in tokens:
                loss = joint_loss(n, k) + (3 * rows**-0.4 if len(tokens) > 1 else 0.0)
                for place in (0, 1):
                    off = math.exp(noise * generator.standard_normal())
                    runs.append(Run(f"n{n}-k{k}-T{rows}-{place}", n, k, place, rows, loss * off))
    return runs
