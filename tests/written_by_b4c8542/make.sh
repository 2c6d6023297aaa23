#!/bin/sh
# Run in an empty folder with fit.yaml, lightsae of commit b4c8542 on PYTHONPATH and its root for
# `tests`. Extraction ends at an image that cannot be read, as it is meant to.
python - <<'END'
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
END
python -m lightsae fit --config fit.yaml --run_dir whole
python -m lightsae fit --config fit.yaml --run_dir run --trainer.max_steps 7
python -m lightsae extract --model.module tests.activations.stand_ins.Activated \
    --model.arguments '{kind: ReLU}' --data.dataset tests.activations.stand_ins.Noise \
    --data.arguments '{count: 40, bad: [33]}' --layer 0 --tokens pooled --dtype float32 \
    --batch_size 5 --rows_per_shard 25 --out extraction
mv whole/sae/sae.safetensors whole.safetensors
rm -r whole
