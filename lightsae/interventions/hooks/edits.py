"""Edits: what is done to the activations of some latents."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interventions.hooks.layer_code import (
    Latents,
    LayerCode,
    checked_latents,
    latent_numbers,
)

Amount = float | Tensor


class Edit(ABC):
    """New activations of some latents; a subclass says which in `new`.

    Args:
        latents: Which, or None for all of the dictionary.
        amounts: What a subclass needs by name: numbers, or tensors with one for each latent, [m].
    """

    def __init__(self, latents: Latents | int | None, **amounts: Amount) -> None:
        self._given = None if latents is None else latent_numbers(latents)
        self._amounts = amounts
        for name, amount in amounts.items():
            _require_number(name, amount)

    def __repr__(self) -> str:
        latents = "all latents" if self._given is None else _listed(self._given)
        return f"{type(self).__name__} of {latents}"

    def latents(self, d_sae: int) -> Tensor | None:
        """Latents of a dictionary, [m] int64, or None for all.

        Raises:
            LightsaeError: If one is not in it, or what the edit needs does not fit them.
        """
        found = None if self._given is None else checked_latents(self._given, d_sae)
        for name, amount in self._amounts.items():
            _require_amount(name, amount, d_sae if found is None else len(found))
        return found

    @abstractmethod
    def new(self, old: Tensor) -> Tensor:
        """New activations.

        Args:
            old: Activations of the latents, [*lead, m]: samples, places, latents.

        Returns:
            As many.
        """


class Add(Edit):
    """a + value, whether a latent fires or not.

    Args:
        latents: Which.
        value: A number, or one for each latent, [m].

    Example:
        >>> Add([0, 2], 0.5).new(torch.tensor([[1.0, 0.0]]))
        tensor([[1.5000, 0.5000]])
    """

    def __init__(self, latents: Latents | int | None, value: Amount) -> None:
        super().__init__(latents, value=value)
        self.value = value

    def new(self, old: Tensor) -> Tensor:
        """Activations plus the value."""
        return old + _like(self.value, old)


class Scale(Edit):
    """factor a: 0 is ablation, 1 changes nothing, 2 amplifies.

    Args:
        latents: Which.
        factor: A number, or one for each latent, [m].

    Example:
        >>> Scale([0, 2], 2.0).new(torch.tensor([[1.0, 0.0]]))
        tensor([[2., 0.]])
    """

    def __init__(self, latents: Latents | int | None, factor: Amount) -> None:
        super().__init__(latents, factor=factor)
        self.factor = factor

    def new(self, old: Tensor) -> Tensor:
        """Activations times the factor."""
        return old * _like(self.factor, old)


class Clamp(Edit):
    """a brought between low and high; both equal set it.

    Args:
        latents: Which.
        low: Least value, or one for each latent, [m].
        high: Largest value, or one for each latent, [m].

    Raises:
        LightsaeError: If neither is given; when it begins, if low is above high.

    Example:
        >>> Clamp([0, 2], low=0.5, high=0.5).new(torch.tensor([[1.0, 0.0]]))
        tensor([[0.5000, 0.5000]])
    """

    def __init__(
        self,
        latents: Latents | int | None,
        low: Amount | None = None,
        high: Amount | None = None,
    ) -> None:
        given = {"low": low, "high": high}
        super().__init__(latents, **{name: at for name, at in given.items() if at is not None})
        if low is None and high is None:
            raise LightsaeError("Clamp has neither low nor high, expected one of them or both")
        self.low, self.high = low, high

    def latents(self, d_sae: int) -> Tensor | None:
        """Latents of a dictionary, with bounds that are in their order."""
        found = super().latents(d_sae)
        if self.low is not None and self.high is not None:
            low, high = (torch.as_tensor(bound).detach().cpu() for bound in (self.low, self.high))
            if bool((low > high).any()):
                raise LightsaeError(f"Clamp has low = {self.low} above high = {self.high}")
        return found

    def new(self, old: Tensor) -> Tensor:
        """Activations between the bounds."""
        if self.low is not None:
            old = old.maximum(_like(self.low, old))
        if self.high is not None:
            old = old.minimum(_like(self.high, old))
        return old


class ZeroAblate(Edit):
    """0.

    Example:
        >>> ZeroAblate([0, 2]).new(torch.tensor([[1.0, 0.5]]))
        tensor([[0., 0.]])
    """

    def new(self, old: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(old)


class MeanAblate(Edit):
    """Each latent's mean over some data, the same at every place.

    Args:
        latents: Which.
        means: A number, or one for each latent, [m].

    Example:
        >>> MeanAblate([0, 2], torch.tensor([0.2, 0.1])).new(torch.tensor([[1.0, 0.5]]))
        tensor([[0.2000, 0.1000]])
    """

    def __init__(self, latents: Latents | int | None, means: Amount) -> None:
        super().__init__(latents, means=means)
        self.means = means

    def new(self, old: Tensor) -> Tensor:
        """The means."""
        return _like(self.means, old).expand_as(old)


class Swap(Edit):
    """The activations that another input has at the same places.

    Args:
        latents: Which.
        source: Code of the other input at this layer, as `record` gives it; of one sample for all,
            or of as many samples.

    Example:
        >>> from lightsae.sae import SparseCode
        >>> code = SparseCode(torch.tensor([[3.0]]), torch.tensor([[2]]), d_sae=4)
        >>> edit = Swap([0, 2], LayerCode(code, lead=(1,)))
        >>> edit.latents(d_sae=4)
        tensor([0, 2])
        >>> edit.new(torch.ones(1, 2))
        tensor([[0., 3.]])
    """

    def __init__(self, latents: Latents | int | None, source: LayerCode) -> None:
        super().__init__(latents)
        self.source = source
        self._columns: Tensor | None = None

    def latents(self, d_sae: int) -> Tensor | None:
        """Latents of a dictionary, which is that of the source."""
        if self.source.code.d_sae != d_sae:
            raise LightsaeError(
                f"the source of Swap has d_sae = {self.source.code.d_sae}, the layer's autoencoder "
                f"d_sae = {d_sae}"
            )
        found = super().latents(d_sae)
        self._columns = self.source.to_dense() if found is None else self.source.columns(found)
        return found

    def new(self, old: Tensor) -> Tensor:
        """The activations of the source."""
        assert self._columns is not None
        columns = self._columns.detach().to(old)
        if columns.ndim != old.ndim or columns.shape[1:] != old.shape[1:]:
            raise LightsaeError(
                f"the source of Swap has places {list(columns.shape[:-1])}, the pass "
                f"{list(old.shape[:-1])}: expected the same"
            )
        if len(columns) not in (1, len(old)):
            raise LightsaeError(
                f"the source of Swap has {len(columns)} samples, the pass {len(old)}: expected as "
                "many, or one"
            )
        return columns.expand_as(old)


def _like(amount: Amount, old: Tensor) -> Tensor:
    """An amount as a tensor beside activations."""
    return torch.as_tensor(amount, dtype=old.dtype, device=old.device)


def _require_number(name: str, amount: Amount) -> None:
    """Refuse what is no amount."""
    try:
        torch.as_tensor(amount)
    except (TypeError, ValueError, RuntimeError):
        raise LightsaeError(f"{name} is {amount!r}, expected a number or a tensor") from None


def _require_amount(name: str, amount: Amount, m: int) -> None:
    """Refuse what is neither one number nor one for each latent, or not finite."""
    tensor = torch.as_tensor(amount)
    if tensor.ndim > 1 or (tensor.ndim == 1 and len(tensor) != m):
        raise LightsaeError(
            f"{name} has shape {list(tensor.shape)}, expected a number or [m = {m}], one for each "
            "latent"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise LightsaeError(f"{name} is {amount}, expected finite numbers")


def _listed(latents: Tensor) -> str:
    """Latents, for messages."""
    some = ", ".join(str(int(latent)) for latent in latents[:5])
    plural = "latent" if len(latents) == 1 else "latents"
    return f"{plural} {some}" + (f" and {len(latents) - 5} more" if len(latents) > 5 else "")
