"""A frozen model's activations: written to HDF5 shards, read back in shuffled batches."""
