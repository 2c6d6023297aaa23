"""Dead latents: samples seen since each latent last fired."""

import logging

import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from lightsae_kernels import Encoded
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from lightsae.sae import AuxK
from lightsae.training.rank_weights import rows_of_all

# Lightning's own loggers are silent on the command line.
_tell = rank_zero_only(logging.getLogger("lightsae.training").info)


class DeadLatentTracker(nn.Module):
    """Counts, for every latent, the tokens since it last fired (arXiv 2406.04093).

    The counters are a buffer: checkpoints carry them. Under data parallelism a firing on any rank
    resets a counter everywhere and the tokens of all ranks count.

    Args:
        d_sae: Size of the dictionary.

    Attributes:
        tokens_since_fired: [d_sae] int64.

    Example:
        >>> import torch
        >>> from lightsae_kernels import encode_topk
        >>> tracker = DeadLatentTracker(3)
        >>> code = encode_topk(torch.eye(3)[:2], torch.eye(3), torch.zeros(3), torch.zeros(3), 1)
        >>> tracker.update(code)
        >>> tracker.dead(dead_after=2)
        tensor([False, False,  True])
    """

    tokens_since_fired: Tensor

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.register_buffer("tokens_since_fired", torch.zeros(d_sae, dtype=torch.int64))

    @torch.no_grad()
    def update(
        self,
        encoded: Encoded,
        fired_above: float = 0.0,
        process_group: ProcessGroup | None = None,
    ) -> None:
        """Count a batch.

        Args:
            encoded: The code of the batch.
            fired_above: Activation above which a latent has fired.
            process_group: Ranks that share the batch.
        """
        self.tokens_since_fired += rows_of_all(encoded.values, process_group)
        # Without waiting for the device: an index that has not fired keeps its counter.
        never = torch.iinfo(torch.int64).max
        counts = torch.where(encoded.values > fired_above, 0, never).reshape(-1)
        self.tokens_since_fired.scatter_reduce_(0, encoded.indices.reshape(-1), counts, "amin")
        if process_group is not None:
            dist.all_reduce(self.tokens_since_fired, op=dist.ReduceOp.MIN, group=process_group)

    def dead(self, dead_after: int) -> Tensor:
        """Latents that have not fired for `dead_after` tokens, [d_sae] bool."""
        return self.tokens_since_fired >= dead_after


def warn_if_never_dead(counters: Tensor, dead_after: int, rows: int | None) -> None:
    """Say so where a run is too short for any latent to be called dead.

    Args:
        counters: Tokens since each latent fired as the run begins, [d_sae].
        dead_after: Tokens without firing after which a latent is dead.
        rows: Rows of the run, None where nothing limits them.
    """
    if rows is None or int(counters.max()) + rows >= dead_after:
        return
    rank_zero_warn(
        f"aux_k.dead_after = {dead_after} does not come within the run, which has {rows} rows: no "
        "latent is ever called dead, AuxK never acts and train/dead_fraction stays 0; set it to "
        f"{max(rows // 10, 1)}, a tenth of them, or less"
    )


def tell_dead_after(aux_k: AuxK | None, d_sae: int, k: int) -> None:
    """Say after how many rows a latent is dead, where the user has not.

    Args:
        aux_k: Settings of the auxiliary loss; without one the metrics go by its defaults.
        d_sae: Size of the dictionary.
        k: Latents per row.
    """
    settings = AuxK() if aux_k is None else aux_k
    if settings.dead_after is not None:
        return
    _tell(
        f"{'train/dead_fraction' if aux_k is None else 'aux_k'}: a latent is dead after "
        f"{settings.dead_after_rows(d_sae, k):,} rows without firing "
        f"({settings.dead_after_multiple:g} d_sae / k)"
    )
