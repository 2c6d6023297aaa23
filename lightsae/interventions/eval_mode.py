"""Models and autoencoders that are measured are in eval mode."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lightsae.errors import LightsaeError
from lightsae.sae import SparseAutoencoder
from lightsae.sae.selection.fused_selection import inference_rule


def require_eval(model: nn.Module, what: str) -> None:
    """Refuse a model whose answers are random, or depend on other samples of the batch.

    Args:
        model: The model.
        what: What it is, for the message.

    Raises:
        LightsaeError: Naming a part in training mode that drops values (dropout, stochastic depth,
            a rate of its own such as `attention_dropout`) or takes the statistics of a batch.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))
        >>> require_eval(model.eval(), "model")
        >>> require_eval(model.train(), "model")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: model.1, a Dropout, is in training mode: call model.eval()
    """
    for name, part in model.named_modules():
        if part.training and (isinstance(part, _BatchNorm) or _drops(part)):
            where = f"{what}.{name}" if name else what
            raise LightsaeError(
                f"{where}, a {type(part).__name__}, is in training mode: call {what}.eval()"
            )


def _drops(part: nn.Module) -> bool:
    """Whether a module, its own parts aside, drops values at random while it trains."""
    if isinstance(part, _DropoutNd):
        return part.p > 0
    # timm's stochastic depth has drop_prob, attention of transformers attention_dropout, ...
    rates = (value for name, value in vars(part).items() if "drop" in name)
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


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
