"""Models and autoencoders that are measured are in eval mode."""

from torch import nn

from lightsae.errors import LightsaeError
from lightsae.sae import SparseAutoencoder
from lightsae.sae.selection.fused_selection import inference_rule


def require_eval(model: nn.Module, what: str) -> None:
    """Refuse a model of which a part is in training mode: dropout would be drawn anew each time.

    Args:
        model: The model.
        what: What it is, for the message.

    Raises:
        LightsaeError: Naming the part.

    Example:
        >>> require_eval(nn.Sequential(nn.Dropout()).eval(), "model")
        >>> require_eval(nn.Sequential(nn.Dropout()), "model")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: model is in training mode: call its eval()
    """
    for name, part in model.named_modules():
        if part.training:
            where = f"{what}.{name}" if name else what
            raise LightsaeError(f"{where} is in training mode: call its eval()")


def require_eval_sae(sae: SparseAutoencoder, what: str) -> None:
    """Refuse an autoencoder in training mode whose codes would be others in eval mode.

    Args:
        sae: The autoencoder, such as one whose selection is `BatchTopK`.
        what: What it is, for the message.

    Raises:
        LightsaeError: If it is one.
    """
    if sae.training and inference_rule(sae.selection) is not sae.selection:
        raise LightsaeError(
            f"{what} is in training mode, in which {type(sae.selection).__name__} takes the rows "
            "of a batch together: call its eval()"
        )
