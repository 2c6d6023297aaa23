"""A weight in the loss that rises linearly from 0."""

import math

from lightsae.errors import LightsaeError


class WarmedUpWeight:
    """What has a lambda and, if it is asked for, optimizer steps over which lambda rises.

    Attributes:
        weight: lambda.
        weight_warmup: Optimizer steps over which lambda rises linearly from 0.
    """

    weight: float
    # A subclass whose constructor does not set one has none.
    weight_warmup: int = 0

    def _set_weight(self, weight: float, weight_warmup: int) -> None:
        if not 0 <= weight < math.inf:
            raise LightsaeError(f"weight must be at least 0 and finite, got {weight}")
        if weight_warmup < 0:
            raise LightsaeError(f"weight_warmup must be at least 0 steps, got {weight_warmup}")
        self.weight, self.weight_warmup = weight, weight_warmup

    def weight_at(self, step: int) -> float:
        """Lambda at an optimizer step, counted from 0.

        Example:
            >>> from lightsae.sae import OffSupportL1
            >>> [OffSupportL1(0.1, weight_warmup=4).weight_at(step) for step in (0, 1, 4, 9)]
            [0.0, 0.025, 0.1, 0.1]
        """
        if step >= self.weight_warmup:
            return self.weight
        return self.weight * step / self.weight_warmup
