"""Activations on the disk: the format of a folder of HDF5 shards, writing and reading it."""
