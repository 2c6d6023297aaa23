"""Sets of layers that a vector is injected in: by rank, and random ones."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

LayerSet = tuple[str, ...]


def ordered(layers: Sequence[str], chosen: Sequence[str]) -> LayerSet:
    """Some layers in the order of the model.

    Args:
        layers: All of them.
        chosen: Some.

    Example:
        >>> ordered(["0", "1", "2"], ["2", "0"])
        ('0', '2')
    """
    return tuple(layer for layer in layers if layer in chosen)


def random_sets(
    layers: Sequence[str], size: int, draws: int, seed: int, *, without: LayerSet = ()
) -> list[LayerSet]:
    """Different random sets of layers; all there are where these are no more than draws.

    Args:
        layers: To draw from.
        size: Layers of a set.
        draws: How many sets at most.
        seed: Of the draws.
        without: A set that is not drawn, in the order of the layers.

    Example:
        >>> random_sets(["0", "1", "2"], 2, 10, seed=0, without=("0", "1"))
        [('0', '2'), ('1', '2')]
        >>> len(set(random_sets([str(i) for i in range(40)], 8, 20, seed=0)))
        20
    """
    there = math.comb(len(layers), size) - (len(without) == size)
    if there <= draws:
        return [found for found in combinations(layers, size) if found != without]
    generator = np.random.default_rng(seed)
    found: dict[LayerSet, None] = {}
    while len(found) < draws:
        drawn = np.sort(generator.choice(len(layers), size, replace=False))
        one = tuple(layers[place] for place in drawn)
        if one != without:
            found[one] = None
    return list(found)
