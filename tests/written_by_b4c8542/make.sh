#!/bin/sh
# Run in this folder with lightsae of commit b4c8542 on PYTHONPATH, and its root for `tests`.
python make_shards.py
python -m lightsae fit --config fit.yaml --run_dir whole
python -m lightsae fit --config fit.yaml --run_dir run --trainer.max_steps 7
python -m lightsae extract --model.module tests.activations.stand_ins.Activated \
    --model.arguments '{kind: ReLU}' --data.dataset tests.activations.stand_ins.Noise \
    --data.arguments '{count: 40, bad: [33]}' --layer 0 --tokens pooled --dtype float32 \
    --batch_size 5 --rows_per_shard 25 --out extraction
mv whole/sae/sae.safetensors whole.safetensors
rm -r whole
