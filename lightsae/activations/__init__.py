"""A frozen model's activations: written to HDF5 shards, read back in shuffled batches."""

from lightsae.activations.batch import ActivationBatch
from lightsae.activations.datamodule import ActivationDataModule, ActivationSource
from lightsae.activations.extract import Extraction, extract
from lightsae.activations.format import Manifest, ShardEntry
from lightsae.activations.images import ImageSet
from lightsae.activations.loader import ActivationLoader
from lightsae.activations.models import LayerTap, ModelOptions
from lightsae.activations.online import OnlineActivationDataModule
from lightsae.activations.preparation import DataOptions
from lightsae.activations.shard_set import ShardSet
from lightsae.activations.writer import ShardWriter

__all__ = [
    "ActivationBatch",
    "ActivationDataModule",
    "ActivationLoader",
    "ActivationSource",
    "DataOptions",
    "Extraction",
    "ImageSet",
    "LayerTap",
    "Manifest",
    "ModelOptions",
    "OnlineActivationDataModule",
    "ShardEntry",
    "ShardSet",
    "ShardWriter",
    "extract",
]
