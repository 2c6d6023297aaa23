"""A frozen model's activations: written to HDF5 shards, read back in shuffled batches."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.activations.extraction.extract import extract
    from lightsae.activations.extraction.extraction_job import Extraction
    from lightsae.activations.extraction.images.image_set import ImageSet
    from lightsae.activations.extraction.images.preparation import DataOptions
    from lightsae.activations.extraction.models.layer_tap import LayerTap
    from lightsae.activations.extraction.models.options import ModelOptions
    from lightsae.activations.loading.activation_batch import ActivationBatch
    from lightsae.activations.loading.datamodule import ActivationDataModule, ActivationSource
    from lightsae.activations.loading.loader import ActivationLoader
    from lightsae.activations.loading.online.online_datamodule import OnlineActivationDataModule
    from lightsae.activations.shards.manifest import Manifest, ShardEntry
    from lightsae.activations.shards.reading.shard_set import ShardSet
    from lightsae.activations.shards.writer import ShardWriter
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "ActivationBatch": ".loading.activation_batch",
            "ActivationDataModule": ".loading.datamodule",
            "ActivationLoader": ".loading.loader",
            "ActivationSource": ".loading.datamodule",
            "DataOptions": ".extraction.images.preparation",
            "Extraction": ".extraction.extraction_job",
            "ImageSet": ".extraction.images.image_set",
            "LayerTap": ".extraction.models.layer_tap",
            "Manifest": ".shards.manifest",
            "ModelOptions": ".extraction.models.options",
            "OnlineActivationDataModule": ".loading.online.online_datamodule",
            "ShardEntry": ".shards.manifest",
            "ShardSet": ".shards.reading.shard_set",
            "ShardWriter": ".shards.writer",
            "extract": ".extraction.extract",
        },
    )

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
