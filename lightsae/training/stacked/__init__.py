"""Several autoencoders of one shape, trained in one process over the same batches."""

from lightsae.training.stacked.member import Member
from lightsae.training.stacked.module import StackedModule

__all__ = ["Member", "StackedModule"]
