"""A frozen model's activations: written to HDF5 shards, read back in shuffled batches."""

from lightsae.activations.extraction.extract import extract
from lightsae.activations.extraction.extraction_job import Extraction
from lightsae.activations.extraction.images import ImageSet
from lightsae.activations.extraction.models import LayerTap, ModelOptions
from lightsae.activations.extraction.preparation import DataOptions
from lightsae.activations.loading.batch import ActivationBatch
from lightsae.activations.loading.datamodule import ActivationDataModule, ActivationSource
from lightsae.activations.loading.loader import ActivationLoader
from lightsae.activations.loading.online_datamodule import OnlineActivationDataModule
from lightsae.activations.shards.manifest import Manifest, ShardEntry
from lightsae.activations.shards.shard_set import ShardSet
from lightsae.activations.shards.writer import ShardWriter

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
