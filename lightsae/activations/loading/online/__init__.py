"""Batches from a model that runs beside the training, without shards."""
