"""Row counts and loss weights of batches that are shared over ranks."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


def rows_of_all(batch: Tensor, process_group: ProcessGroup | None) -> int | Tensor:
    """How many rows the batches of all ranks have together.

    Args:
        batch: This rank's, [B, ...].
        process_group: The ranks; None for this one alone.

    Returns:
        A number, or an int64 scalar on the batch's device, so that nothing waits for it.

    Example:
        >>> rows_of_all(torch.zeros(3, 2), None)
        3
    """
    if process_group is None:
        return len(batch)
    rows = torch.full((), len(batch), device=batch.device)
    dist.all_reduce(rows, group=process_group)
    return rows


def share_of_rows(batch: Tensor, process_group: ProcessGroup | None) -> float | Tensor:
    """This rank's rows over the mean of all ranks': the weight of its means in theirs.

    Args:
        batch: This rank's, [B, ...].
        process_group: The ranks; None for this one alone.

    Returns:
        1 if all have as many; a float64 scalar on the batch's device if there are several ranks.

    Example:
        >>> share_of_rows(torch.zeros(3, 2), None)
        1.0
    """
    rows = rows_of_all(batch, process_group)
    if not isinstance(rows, Tensor):
        return 1.0
    return len(batch) * dist.get_world_size(process_group) / rows.double()
