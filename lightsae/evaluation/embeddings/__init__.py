"""The embeddings that monosemanticity is measured in, a row for each image of a split."""

from lightsae.evaluation.embeddings.choice import Embeddings, open_embeddings
from lightsae.evaluation.embeddings.image_embeddings import ImageEmbeddings
from lightsae.evaluation.embeddings.shard_embeddings import read_embeddings

__all__ = ["Embeddings", "ImageEmbeddings", "open_embeddings", "read_embeddings"]
