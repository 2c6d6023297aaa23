"""Shards of made-up activations, and the first part of such a folder; see test_compatibility.py."""

import torch

from lightsae.activations import Manifest, ShardWriter

generator = torch.Generator().manual_seed(0)
x = torch.randn(100, 8, generator=generator).relu() @ torch.randn(8, 4, generator=generator) + 1
about = {"d_in": 4, "dtype": "float16", "model": "made up", "layer": "blocks.3"}
with ShardWriter("shards", Manifest(**about, has_labels=True), chunk_rows=20) as writer:
    for part in torch.arange(100).split(20):
        writer.write(x[part], part // 2, token_index=part % 2, label=part % 3)

writer = ShardWriter("half", Manifest(**about), rows_per_shard=40, chunk_rows=20)
for number, part in enumerate(torch.arange(60).split(20)):
    writer.write(x[part], part, progress={"parts": number + 1})
writer.abort()
