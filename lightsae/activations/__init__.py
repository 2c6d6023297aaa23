"""A frozen model's activations: written to HDF5 shards, read back in shuffled batches."""

from lightsae.activations.batch import ActivationBatch
from lightsae.activations.datamodule import ActivationDataModule, ActivationSource
from lightsae.activations.format import Manifest, ShardEntry
from lightsae.activations.loader import ActivationLoader
from lightsae.activations.reader import ShardSet
from lightsae.activations.writer import ShardWriter

__all__ = [
    "ActivationBatch",
    "ActivationDataModule",
    "ActivationLoader",
    "ActivationSource",
    "Manifest",
    "ShardEntry",
    "ShardSet",
    "ShardWriter",
]
