"""`SAEAdam`: Adam in one pass per parameter, with unit norm of the decoder rows."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from lightsae_kernels import AdamSettings, NarrowCopy, Quantized, adam_step_
from lightsae_kernels.argument_checks import check_adam_settings
from lightsae_kernels.quantized_moments import quantized_zeros
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from lightsae.errors import LightsaeError

# Of a schedule that comes to a rate step by step, as a share of the initial rate.
_ROUNDING = 1e-9
_STATE_DTYPES = ("float32", "bfloat16", "int8")
# Of the moments, with the dtype of their codes where they are kept in 8 bits.
_MOMENTS = {"exp_avg": torch.int8, "exp_avg_sq": torch.uint8}


class SAEAdam(Optimizer):
    """Adam or AdamW in one pass over each parameter (arXiv 1412.6980, 1711.05101).

    On any parameter it is `torch.optim.Adam`, and each goes on from the other's state dict where
    the moments are no codes. Of the parameters named to `keep_unit_rows` it also projects the
    gradient off the rows and brings the rows back to unit norm, in the same pass; `SAEModule` names
    the decoder. Rows whose gradient and moments are all 0 stay as they are without weight decay.

    Moments in bfloat16 take half the memory, and lose this: what changes a moment by less than 0.2%
    is rounded away, so with betas[1] above 0.998 the second moment rises and never falls.

    Moments in int8 take a quarter: a code and a scale for each 256 of a row (arXiv 2110.02861), as
    `lightsae_kernels.quantized_moments` defines. Codes are 3% apart near the largest of their 256
    and wider below; which one is taken is dithered by the step, so that what is kept is right in
    the mean.
    A gradient whose square float32 does not hold stops the others of its 256 too, for long.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate, or a tensor of one element with it.
        betas: Decay of the first and of the second moment.
        eps: Added to the root of the second moment.
        weight_decay: Factor of the weight decay.
        decoupled_weight_decay: Shrink the parameter (AdamW) instead of adding to the gradient.
        state_dtype: Of the moments; float64 parameters keep float64 moments under "float32", and
            under "int8" parameters that are no matrices keep moments as under "float32".

    Raises:
        LightsaeError: If state_dtype is none of these.
        ArgumentError: A ValueError; if a setting is out of range.

    Example:
        >>> W = torch.nn.Parameter(torch.tensor([[1.0, 0.0]]))
        >>> optimizer = SAEAdam([W], lr=0.75)
        >>> optimizer.keep_unit_rows(W)
        >>> W.sum().backward()
        >>> optimizer.step()
        >>> W.data
        tensor([[ 0.8000, -0.6000]])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        state_dtype: Literal["float32", "bfloat16", "int8"] = "float32",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "state_dtype": state_dtype,
        }
        self._unit_rows: dict[Tensor, bool] = {}
        self._copies: dict[Tensor, NarrowCopy] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own, as in `torch.optim.Optimizer`."""
        super().add_param_group(param_group)
        _require_possible(self.param_groups[-1])

    def keep_unit_rows(self, parameter: Tensor, project: bool = True) -> None:
        """Keep the rows of a parameter at unit norm.

        Args:
            parameter: One of this optimizer's, [N, D].
            project: Also remove from each row of the gradient its part along the row; leave that
                out where it is done before the gradient is clipped.

        Raises:
            LightsaeError: If the parameter is not this optimizer's or has no rows.
        """
        self._require_mine(parameter)
        if parameter.dim() != 2:
            raise LightsaeError(f"unit rows need a matrix, got shape {tuple(parameter.shape)}")
        self._unit_rows[parameter] = project

    def keep_copy(self, parameter: Tensor, copy: NarrowCopy) -> None:
        """Write a parameter in another dtype now and at every step.

        The copy is no longer taken when the parameter is changed by anything but this optimizer. A
        change of its content through `.data` is not seen, and wants `refresh_copies`.

        Args:
            parameter: One of this optimizer's.
            copy: Where to; `SparseAutoencoder.keep_narrow` makes one that its products take.

        Raises:
            LightsaeError: If the parameter is not this optimizer's.
        """
        self._require_mine(parameter)
        self._copies[parameter] = copy
        copy.write(parameter)

    def refresh_copies(self) -> None:
        """Write the copies again, after something may have changed a parameter through `.data`."""
        for parameter, copy in self._copies.items():
            copy.write(parameter)

    def _require_mine(self, parameter: Tensor) -> None:
        if not any(parameter is p for group in self.param_groups for p in group["params"]):
            raise LightsaeError("the parameter is not one of this optimizer's")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every parameter that has a gradient.

        Args:
            closure: Computes the loss and the gradients first.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            states = [self.state_of(p, group["state_dtype"]) for p in parameters]
            if states:
                torch._foreach_add_([state["step"] for state in states], 1)
            for parameter, state in zip(parameters, states, strict=True):
                self._step_one(parameter, state, group)
        return loss

    def _step_one(self, parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        settings = settings_of(group)._replace(
            project=self._unit_rows.get(parameter, False), normalize=parameter in self._unit_rows
        )
        first, second = (_moment(state, name) for name in _MOMENTS)
        copy = self._copies.get(parameter)
        target = None if copy is None else copy.target(parameter)
        adam_step_(parameter, parameter.grad, first, second, state["step"], settings, target)
        if copy is not None:
            copy.written(parameter)

    def state_of(self, parameter: Tensor, state_dtype: str) -> dict[str, Tensor]:
        """The state of a parameter: its steps and moments, zeros where it has none yet."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for name, codes in _MOMENTS.items():
                if state_dtype == "int8" and parameter.dim() == 2:
                    zeros = quantized_zeros(parameter.detach(), codes)
                    state.update({f"{name}_{part}": t for part, t in zeros._asdict().items()})
                elif state_dtype == "bfloat16":
                    state[name] = torch.zeros_like(parameter, dtype=torch.bfloat16)
                else:
                    dtype = torch.promote_types(parameter.dtype, torch.float32)
                    state[name] = torch.zeros_like(parameter, dtype=dtype)
        return state

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state, its moments in the dtype in which they were saved.

        A learning rate that is a tensor stays one, on its device.

        Args:
            state_dict: What `state_dict` returned, or that of `torch.optim.Adam` or `AdamW`.

        Raises:
            LightsaeError: If it was saved with amsgrad or maximize, by another kind of optimizer,
                or of parameters of other shapes.
        """
        rates = [group["lr"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        parts = zip(self.param_groups, state_dict["param_groups"], rates, strict=True)
        for group, saved, rate in parts:
            _require_possible(group)
            group["lr"] = _in_place_of(rate, group["lr"])
            for parameter, key in zip(group["params"], saved["params"], strict=True):
                found = state_dict["state"].get(key, {})
                _require_moments(found, parameter, key)
                # The base class rounds moments to the dtype of the parameter.
                for name, value in found.items():
                    kept = torch.as_tensor(value, dtype=torch.float32) if name == "step" else value
                    self.state[parameter][name] = kept.to(parameter.device, copy=True)
            group["state_dtype"] = self._kept_dtype(group)
        self.refresh_copies()

    def _kept_dtype(self, group: dict[str, Any]) -> str:
        """In which dtype moments of a group are; what was asked for, if there are none."""
        states = [self.state[p] for p in group["params"] if self.state.get(p)]
        if any("exp_avg" not in state for state in states):
            return "int8"
        if any(state["exp_avg"].dtype == torch.bfloat16 for state in states):
            return "bfloat16"
        return "float32" if states else str(group["state_dtype"])

    def __getstate__(self) -> dict[str, Any]:
        """What a copy of this optimizer has: the rows and copies that it keeps too."""
        kept = {"_unit_rows": self._unit_rows, "_copies": self._copies}
        return {**super().__getstate__(), **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Complete groups that were saved by `torch.optim.Adam`."""
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)


def _moment(state: dict[str, Tensor], name: str) -> Tensor | Quantized:
    """Codes have names of their own: torch's Adam would take them for moments."""
    if name in state:
        return state[name]
    return Quantized(*(state[f"{name}_{part}"] for part in Quantized._fields))


def _in_place_of(rate: float | Tensor, loaded: float | Tensor) -> float | Tensor:
    """A learning rate as the one it replaces is kept: a graph reads it from its device."""
    if isinstance(rate, Tensor):
        return torch.as_tensor(loaded, dtype=rate.dtype).to(rate.device).reshape(rate.shape)
    return float(loaded)


def _require_moments(state: dict[str, Any], parameter: Tensor, key: int) -> None:
    """Refuse the state of a parameter that this optimizer cannot go on from."""
    codes = {f"{name}_{part}" for name in _MOMENTS for part in Quantized._fields}
    if state and state.keys() not in ({"step", *_MOMENTS}, {"step", *codes}):
        raise LightsaeError(
            f"the state of parameter {key} has {', '.join(map(str, state))}: it is of another "
            "optimizer than Adam"
        )
    for name in ("exp_avg", "exp_avg_codes", "exp_avg_sq", "exp_avg_sq_codes"):
        if name in state and state[name].shape != parameter.shape:
            raise LightsaeError(
                f"{name} of parameter {key} has shape {tuple(state[name].shape)}, the parameter "
                f"{tuple(parameter.shape)}"
            )


def _without_rounding(rate: float | Tensor, initial: float | Tensor) -> float | Tensor:
    """0 for a rate that schedules of torch leave a rounding error below it, as `LinearLR` does."""
    if isinstance(rate, Tensor) or rate >= 0 or -rate > _ROUNDING * float(initial):
        return rate
    return 0.0


def settings_of(group: dict[str, Any]) -> AdamSettings:
    """What a step of a group does, but for the treatment of rows."""
    return AdamSettings(
        lr=_without_rounding(group["lr"], group.get("initial_lr", 0.0)),
        betas=tuple(group["betas"]),
        eps=group["eps"],
        weight_decay=group["weight_decay"],
        decoupled_weight_decay=group["decoupled_weight_decay"],
    )


def _require_possible(group: dict[str, Any]) -> None:
    """Refuse settings out of range, and those that this optimizer does not know."""
    check_adam_settings(settings_of(group))
    if group["state_dtype"] not in _STATE_DTYPES:
        raise LightsaeError(
            f"state_dtype must be one of {list(_STATE_DTYPES)}, got {group['state_dtype']!r}"
        )
    for name in ("amsgrad", "maximize"):
        if group.get(name):
            raise LightsaeError(f"{name} is nothing that SAEAdam does")
