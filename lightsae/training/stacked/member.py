"""One autoencoder of a stack: its module, where it logs to, and why it failed if it did."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from lightsae.training.module import SAEModule


class MetricsLog(Protocol):
    """Where a member's metrics go; `lightsae.runs.MetricsFile` is one."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a line."""
        ...

    def rewind(self, step: int) -> None:
        """Drop the lines of this step and later ones."""
        ...


@dataclass(eq=False)
class Member:
    """One autoencoder of a stack.

    Attributes:
        name: What messages call it.
        module: Built as for a run of its own.
        generator_state: State of torch's generator from which its weights are drawn.
        log: Where its metrics go, or None.
        failure: Why it stopped, or None.
        failed_at: The step that it failed at, from 1 on; None where it did not.
        validation: Metrics of the validation split as last measured, by name; after a `validate`
            those of the stack's probes too.

    Example:
        >>> member = Member.made("a", 0, lambda: SAEModule(d_sae=64, d_in=8))
        >>> member.module.d_sae, member.failure
        (64, None)
    """

    name: str
    module: SAEModule
    generator_state: Tensor
    log: MetricsLog | None = None
    failure: str | None = None
    failed_at: int | None = None
    validation: dict[str, float] = field(default_factory=dict)

    @classmethod
    def made(
        cls, name: str, seed: int, make: Callable[[], SAEModule], log: MetricsLog | None = None
    ) -> "Member":
        """A member whose weights are those of a run of its own with a seed.

        Args:
            name: What messages call it.
            seed: As `seed_everything` of that run.
            make: Builds the module.
            log: Where its metrics go.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = make()
            return cls(name, module, torch.get_rng_state(), log)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Random numbers within it are those that a run of its own would draw next."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.generator_state)
            yield

    def write(self, metrics: dict[str, Any], step: int) -> None:
        """Log metrics of a step."""
        if self.log is not None:
            self.log.log_metrics({name: float(value) for name, value in metrics.items()}, step)
