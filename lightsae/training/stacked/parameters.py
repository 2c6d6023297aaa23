"""Parameters, gradients, counters and moments of several autoencoders over a leading axis.

Each member's own tensors are views into the stack, so that whatever a module does with its
autoencoder (evaluating, saving, a step of any optimizer) it does to its part of the stack.

Shapes: W_enc and W_dec [S, N, D], b_enc [S, N], b_dec [S, D]; S members, N = d_sae, D = d_in.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightsae.training.module import SAEModule
from lightsae.training.optimizer import SAEAdam

NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")
_MOMENTS = ("exp_avg", "exp_avg_sq")


class ParameterStack:
    """The tensors of several modules of one shape, dtype and device.

    Args:
        modules: Built, on their device and in their dtype.

    Attributes:
        modules: Those whose tensors are views into this stack.
        values: Parameters by name, [S, ...].
        gradients: Their gradients, which autograd adds to in place.
        tokens_since_fired: Counters of all members, [S, N] int64.
        moments: First and second moments by name, after `stack_moments`.
        step: Number of steps taken, one float32 that all members share, after `stack_moments`.

    Example:
        >>> modules = [SAEModule(d_sae=64, d_in=8) for _ in range(3)]
        >>> stack = ParameterStack(modules)
        >>> stack.values["W_enc"][1].zero_().shape, modules[1].sae.W_enc.abs().sum().item()
        (torch.Size([64, 8]), 0.0)
    """

    def __init__(self, modules: Sequence[SAEModule]) -> None:
        self.modules = list(modules)
        saes = [module.sae for module in self.modules]
        self.values = {
            name: torch.stack([getattr(sae, name).detach() for sae in saes]) for name in NAMES
        }
        self.gradients = {name: torch.zeros_like(value) for name, value in self.values.items()}
        self.tokens_since_fired = torch.stack(
            [module.dead_latents.tokens_since_fired for module in self.modules]
        )
        self.moments: dict[str, dict[str, Tensor]] = {}
        self.step: Tensor | None = None
        self._optimizers: list[SAEAdam] = []
        self._lend()

    def __len__(self) -> int:
        return len(self.modules)

    def stack_moments(self, optimizers: Sequence[Optimizer]) -> bool:
        """Take over the moments of `SAEAdam`s; False, and nothing done, where they cannot be.

        Args:
            optimizers: One of each member, in order.
        """
        if not all(_stackable(*pair) for pair in zip(self.modules, optimizers, strict=True)):
            return False
        self._optimizers = [each for each in optimizers if isinstance(each, SAEAdam)]
        states = [self._states(place) for place in range(len(self))]
        self.moments = {
            name: {kind: torch.stack([each[name][kind] for each in states]) for kind in _MOMENTS}
            for name in NAMES
        }
        self.step = states[0]["W_enc"]["step"].clone() if states else torch.zeros(())
        self._lend()
        return True

    def keep(self, places: Sequence[int]) -> None:
        """Go on with some members alone; the others get tensors of their own."""
        left = [place for place in range(len(self)) if place not in places]
        for place in left:
            self._part_with(place)
        at = torch.tensor(places, dtype=torch.int64, device=self.tokens_since_fired.device)
        for tensors in (self.values, self.gradients, *self.moments.values()):
            for name, tensor in tensors.items():
                tensors[name] = tensor[at]
        self.tokens_since_fired = self.tokens_since_fired[at]
        self.modules = [self.modules[place] for place in places]
        self._optimizers = [self._optimizers[place] for place in places if self._optimizers]
        self._lend()

    def zero_gradients(self) -> None:
        """Forget the gradients, also those of thresholds, which are no part of the stack."""
        for gradient in self.gradients.values():
            gradient.zero_()
        for module in self.modules:
            for name, parameter in module.sae.named_parameters():
                if name not in NAMES:
                    parameter.grad = None

    def _lend(self) -> None:
        """Give every member its views."""
        for place, module in enumerate(self.modules):
            module.dead_latents.tokens_since_fired = self.tokens_since_fired[place]
            for name in NAMES:
                parameter = getattr(module.sae, name)
                parameter.data = self.values[name][place]
                parameter.grad = self.gradients[name][place]
            for name, state in self._states(place).items() if self._optimizers else ():
                state |= {kind: self.moments[name][kind][place] for kind in _MOMENTS}
                assert self.step is not None
                state["step"] = self.step

    def _part_with(self, place: int) -> None:
        """Give a member tensors that are no part of the stack."""
        module = self.modules[place]
        tracker = module.dead_latents
        tracker.tokens_since_fired = tracker.tokens_since_fired.clone()
        for name in NAMES:
            parameter = getattr(module.sae, name)
            parameter.data, parameter.grad = parameter.data.clone(), None
        for state in self._states(place).values() if self._optimizers else ():
            state |= {name: tensor.clone() for name, tensor in state.items()}

    def _states(self, place: int) -> dict[str, dict[str, Tensor]]:
        """The optimizer's state of each parameter of a member."""
        optimizer, sae = self._optimizers[place], self.modules[place].sae
        kept = optimizer.param_groups[0]["state_dtype"]
        return {name: optimizer.state_of(getattr(sae, name), kept) for name in NAMES}


def _stackable(module: SAEModule, optimizer: Optimizer) -> bool:
    """Whether an optimizer steps all parameters alike, with moments as wide as they are."""
    if type(optimizer) is not SAEAdam or len(optimizer.param_groups) != 1:
        return False
    group = optimizer.param_groups[0]
    stepped = {id(parameter) for parameter in group["params"]}
    ours = {id(getattr(module.sae, name)) for name in NAMES}
    trained = all(getattr(module.sae, name).requires_grad for name in NAMES)
    return stepped == ours and trained and group["state_dtype"] == "float32"
