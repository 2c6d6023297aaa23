"""Batches of one source of rows, cut from groups of them while the next are read."""

from collections.abc import Callable, Generator, Iterable

from lightsae.activations.loading.activation_batch import ActivationBatch
from lightsae.activations.loading.batch_assembly import Assembly
from lightsae.activations.loading.buffer_pool import Slabs
from lightsae.activations.loading.epoch_plan import Group
from lightsae.activations.loading.gpu_prefetch import Copies
from lightsae.activations.loading.group_reader import GroupReader
from lightsae.activations.shards.checked_read import aligned
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.reading.row_source import RowSource

Allocate = Callable[[int], Array]
Batches = Generator[ActivationBatch, None, None]


class RowStream:
    """Reads groups of rows and cuts them into batches, in the stored dtype.

    Two streams over sources with the same chunks and samples give the same rows in the same order.

    Args:
        source: The rows.
        in_split: From the sample indices of rows, which of them are wanted.
        rows_per_chunk: Int64 `[n_chunks]`, how many of each chunk's rows are.
        group_rows: Stored rows that a group holds at most, unless one chunk alone has more.
        readers: How many chunks are read at a time.
        copies: What brings batches to a device, or None.

    Attributes:
        reader: Reads the groups.
        memory: Where batches that do not lie in one group are put together.
    """

    def __init__(
        self,
        source: RowSource,
        in_split: Callable[[Array], Array],
        rows_per_chunk: Array,
        group_rows: int,
        readers: int,
        copies: Copies | None,
    ) -> None:
        manifest, allocate = source.manifest, source.allocator(readers)
        pools, self.memory = (
            Slabs(manifest.d_in, manifest.dtype, _for_copies(each, copies))
            for each in (allocate, aligned)
        )
        ahead = 2 if allocate is aligned else 3
        self.reader = GroupReader(
            source, in_split, rows_per_chunk, group_rows, readers, pools, ahead
        )

    def batches(
        self, groups: list[Group], used: int, sizes: Iterable[int], shuffle: list[int] | None
    ) -> Batches:
        """Yield batches.

        Args:
            groups: The groups that they are cut from.
            used: Rows of the first group that are left out.
            sizes: Rows of each batch.
            shuffle: See `GroupReader.read`.
        """
        loaded = self.reader.read(groups, shuffle)
        group = next(loaded)
        try:
            for rows in sizes:
                assembly = Assembly(rows, self.memory)
                while assembly.missing:
                    if used == len(group.rows):
                        del group  # The threads need its memory for the group after the next.
                        group, used = next(loaded), 0
                    used += assembly.take(group, used)
                yield assembly.finish()
                del assembly  # Its memory is needed for the next.
        finally:
            loaded.close()


def _for_copies(allocate: Allocate, copies: Copies | None) -> Allocate:
    """What makes memory that can be copied to a device at full speed, if there is one."""
    if copies is None:
        return allocate
    if allocate is aligned:
        return copies.allocate
    return lambda size: copies.register(allocate(size))
