from ...training.conftest import shards as shards
