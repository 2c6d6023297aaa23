"""What a regularizer needs of the data and of the length of a run, asked before it trains."""

from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.errors import LightsaeError
from lightsae.sae import MonosemanticityLoss, Regularizer, VocabularyAnchor
from lightsae.sae.weight_warmup import WarmedUpWeight


def require_embeddings(regularizer: Regularizer | None, data: Any) -> None:
    """Refuse the monosemanticity loss on embeddings of the data where the data has none.

    Args:
        regularizer: Of a module.
        data: A data module that is set up; of others than this package's the first batch tells.

    Raises:
        LightsaeError: If they do not fit.

    Example:
        >>> from lightsae.activations import ActivationDataModule
        >>> require_embeddings(MonosemanticityLoss(0.1, "data"), ActivationDataModule("shards"))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: MonosemanticityLoss(embeddings='data') gets none: give the \
data module embeddings (data.init_args.embeddings), a folder of shards of another model over the \
same samples
    """
    reads_data = isinstance(regularizer, MonosemanticityLoss) and regularizer.embeddings == "data"
    if reads_data and isinstance(data, SplitDataModule) and data.sample_embeddings is None:
        raise LightsaeError(
            "MonosemanticityLoss(embeddings='data') gets none: give the data module embeddings "
            "(data.init_args.embeddings), a folder of shards of another model over the same samples"
        )


def warn_if_unread(regularizer: Regularizer | None, from_data: Tensor | None) -> None:
    """Say so where the data gives embeddings that the monosemanticity loss does not read.

    Args:
        regularizer: Of a module.
        from_data: Embeddings of a batch, or None.
    """
    reads_rows = isinstance(regularizer, MonosemanticityLoss) and regularizer.embeddings == "input"
    if reads_rows and from_data is not None:
        rank_zero_warn(
            "MonosemanticityLoss(embeddings='input') takes the rows themselves and leaves the "
            "embeddings of the data module unread; embeddings='data' takes those"
        )


def warn_if_never_risen(regularizer: WarmedUpWeight | None, steps: int | None) -> None:
    """Say so where a run ends before lambda has risen.

    Args:
        regularizer: Of a module, or its anchor.
        steps: Optimizer steps of the run, None where nothing limits them.
    """
    if regularizer is None or steps is None or regularizer.weight_warmup <= steps:
        return
    reached = regularizer.weight_at(max(steps - 1, 0))
    rank_zero_warn(
        f"{type(regularizer).__name__}: weight_warmup = {regularizer.weight_warmup} is longer than "
        f"the run, which has {steps} optimizer steps: lambda rises to {reached:.3g} of "
        f"{regularizer.weight:g}"
    )


def warn_if_never_anchored(anchor: VocabularyAnchor | None, steps: int | None) -> None:
    """Say so where a run ends before the anchor is computed.

    Args:
        anchor: Of a module.
        steps: Optimizer steps of the run, None where nothing limits them.
    """
    if anchor is not None and steps is not None and anchor.every > steps:
        rank_zero_warn(
            f"VocabularyAnchor: every = {anchor.every} is longer than the run, which has {steps} "
            "optimizer steps: it is never computed"
        )
