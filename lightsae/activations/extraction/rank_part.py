"""Which part of the images a process extracts, as torchrun numbers the processes."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError

_PART = re.compile(r"\.rank-\d+-of-\d+")


def part_folders(out: Path) -> list[Path]:
    """The folders in which processes write their parts of a folder; others are none of theirs."""
    return [path for path in out.glob(".rank-*") if _PART.fullmatch(path.name)]


class Part(NamedTuple):
    """One process among those that share the images.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def of_environment(cls) -> "Part":
        """What torchrun says of this process, or the only one.

        Raises:
            LightsaeError: If the environment says only a part of it, or nonsense.
        """
        given = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")}
        rank, world = (given[name] or str(int(name != "RANK")) for name in ("RANK", "WORLD_SIZE"))
        known = rank.isdigit() and world.isdigit() and int(rank) < int(world)
        if not known or (int(world) > 1 and not given["MASTER_ADDR"]):
            raise LightsaeError(
                f"the environment has {given}, expected what torchrun sets, or none of them"
            )
        return cls(int(rank), int(world))

    def of(self, order: Array, batch_size: int) -> Array:
        """This process's slice of the order, of whole batches.

        Args:
            order: Int64 `[n]`.
            batch_size: Images per forward pass.

        Returns:
            Int64 `[m]`; one after the other, the slices of all ranks are the order.

        Raises:
            LightsaeError: If there are fewer batches than processes.

        Example:
            >>> import numpy as np
            >>> [Part(rank, 2).of(np.arange(7), 2).tolist() for rank in range(2)]
            [[0, 1, 2, 3], [4, 5, 6]]
        """
        batches = -(-len(order) // batch_size)
        if batches < self.world:
            raise LightsaeError(
                f"{len(order)} images are {batches} batches of {batch_size}, fewer than the "
                f"{self.world} processes: use --nproc_per_node {batches} or a smaller batch_size"
            )
        start, stop = (batches * r // self.world * batch_size for r in (self.rank, self.rank + 1))
        return order[start:stop]

    def folder(self, out: Path) -> Path:
        """Where this process writes."""
        return out if self.world == 1 else out / f".rank-{self.rank}-of-{self.world}"
