"""`ActivationBatch`, what a data loader gives to the module, and plain batches made into one."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightsae.errors import LightsaeError

_EXPECTED = "expected a float tensor [rows, d_in], a list of one such tensor, or an ActivationBatch"


class ActivationBatch(NamedTuple):
    """A batch of activations and where each row came from.

    Attributes:
        activations: Float tensor `[B, d_in]`, in the model's own units.
        sample_index: Int64 `[B]`, the sample (image) that each row belongs to; -1 where the loader
            does not say.
        token_index: Int64 `[B]`, the token of that sample, or -1.
        label: Int64 `[B]`, the sample's class, or None where the data had no labels.
        embeddings: Float `[B, d_e]`, each row's sample as another model sees it, where the data
            module is asked for it, else None.
        targets: Float `[B, d_out]`, each row's activations at another layer, in that layer's units,
            where the data module is asked for them, else None.

    Example:
        >>> import torch
        >>> rows = torch.arange(2)
        >>> batch = ActivationBatch(torch.zeros(2, 3), rows, torch.zeros_like(rows), None)
        >>> batch.activations.shape
        torch.Size([2, 3])
    """

    activations: Tensor
    sample_index: Tensor
    token_index: Tensor
    label: Tensor | None
    embeddings: Tensor | None = None
    targets: Tensor | None = None

    def with_rows_in(self, dtype: torch.dtype) -> "ActivationBatch":
        """The batch with activations and targets in a dtype."""
        targets = None if self.targets is None else self.targets.to(dtype)
        return self._replace(activations=self.activations.to(dtype), targets=targets)


def as_activation_batch(
    batch: Any, d_in: int | None = None, d_out: int | None = None
) -> ActivationBatch:
    """What any loader delivers, as an `ActivationBatch`.

    Args:
        batch: An `ActivationBatch`, a float tensor [B, d_in], or a list or tuple of one.
        d_in: The width it must have; None for any.
        d_out: The width that targets must have, which must be there then; None for any, or none.

    Raises:
        LightsaeError: If it is anything else.

    Example:
        >>> as_activation_batch([torch.ones(2, 3)]).sample_index
        tensor([-1, -1])
    """
    taken = batch
    if not isinstance(taken, ActivationBatch):
        rows = batch[0] if isinstance(batch, list | tuple) and len(batch) == 1 else batch
        if not isinstance(rows, Tensor):
            raise LightsaeError(f"a batch {_kind(batch)}, {_EXPECTED}")
        unknown = torch.full((len(rows),), -1, device=rows.device) if rows.dim() else rows
        taken = ActivationBatch(rows, unknown, unknown, None)
    _require_rows("", taken.activations, "d_in", d_in)
    if taken.targets is not None:
        _require_rows(" of targets", taken.targets, "d_out", d_out)
        if len(taken.targets) != len(taken.activations):
            raise LightsaeError(
                f"a batch has {len(taken.targets)} targets for {len(taken.activations)} rows"
            )
    elif d_out is not None:
        raise LightsaeError(
            "a batch has no targets, which a transcoder reconstructs: expected an ActivationBatch "
            "with targets [rows, d_out], as ActivationDataModule(targets=FOLDER) gives them"
        )
    return taken


def _require_rows(what: str, rows: Tensor, name: str, width: int | None) -> None:
    """Refuse what is no float matrix of the width."""
    if rows.dim() != 2:
        raise LightsaeError(f"a batch{what} has shape {list(rows.shape)}, expected [rows, {name}]")
    if not rows.is_floating_point():
        raise LightsaeError(f"a batch{what} has dtype {rows.dtype}, expected a float dtype")
    if width is not None and rows.shape[1] != width:
        raise LightsaeError(
            f"a batch{what} has rows of width {rows.shape[1]}, the autoencoder has {name} = {width}"
        )


def _kind(batch: Any) -> str:
    """What a batch is that cannot be taken."""
    if isinstance(batch, list | tuple) and len(batch) != 1:
        return f"is a {type(batch).__name__} of {len(batch)} items"
    if isinstance(batch, dict):
        return f"is a dict with keys {', '.join(map(str, batch))}"
    return f"is of type {type(batch).__module__}.{type(batch).__qualname__}"
