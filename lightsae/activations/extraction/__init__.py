"""Extraction: a frozen model runs over images and its activations become shards."""
