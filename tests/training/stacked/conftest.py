from ..conftest import shards as shards
