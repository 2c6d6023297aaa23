"""Run folders to report on: images, shards of rows about them, an autoencoder, its evaluation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from lightsae.activations import ActivationDataModule, DataOptions, Manifest, ShardWriter
from lightsae.activations.extraction.image_origin import origin_settings
from lightsae.activations.extraction.images.image_set import open_images
from lightsae.evaluation import EvaluationResult
from lightsae.metrics import Monosemanticity, TopActivating
from lightsae.sae import SparseAutoencoder, TopK

E = "cnn"
SPLIT = {"val_fraction": 0.0, "test_fraction": 0.5, "split_seed": 3}


def write_images(path: Path, count: int, classes: list[str], side: int = 12) -> Path:
    """Smooth colour pictures and labels, as NPZ; the class is in the colour."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    labels = torch.randint(len(classes), (count,), generator=generator)
    coarse[torch.arange(count), labels % 3] += 1
    images = torch.nn.functional.interpolate(coarse / 2, size=side, mode="bicubic").clamp(0, 1)
    pixels = (images * 255).byte().permute(0, 2, 3, 1).numpy()
    np.savez(path, images=pixels, labels=labels.numpy(), classes=np.array(classes))
    return path


def write_shards(
    folder: Path, images: Path | None, count: int, classes: list[str], *, d_in: int = 8,
    patches: int = 0,
) -> Path:  # fmt: skip
    """Rows near a centre for each class, one an image or `patches` an image."""
    generator = torch.Generator().manual_seed(1)
    settings: dict[str, Any] = {"images": count, "preparation": {}}
    labels = torch.arange(count) % len(classes)
    if images is not None:
        labels = torch.from_numpy(np.load(images)["labels"])
        options = DataOptions(arrays=str(images))
        found = open_images(options, lambda image: image, "RGB")
        settings |= {"data": found.fingerprint, **origin_settings(options)}
    manifest = Manifest(
        d_in=d_in, dtype="float32", model="vit", layer="blocks.1", has_labels=True, classes=classes,
        tokens="patch" if patches else "class", settings=settings,
    )  # fmt: skip
    rows = max(patches, 1)
    centres = torch.randn(len(classes), d_in, generator=generator)
    x = centres[labels].repeat_interleave(rows, 0)
    x = x + 0.7 * torch.randn(x.shape, generator=generator)
    sample = torch.arange(count).repeat_interleave(rows)
    token = torch.arange(rows).repeat(count) + (1 if patches else 0)
    with ShardWriter(folder, manifest, rows_per_shard=50_000) as writer:
        writer.write(x, sample, token, labels.repeat_interleave(rows))
    return folder


def write_run(
    folder: Path, shards: Path, *, d_sae: int = 32, k: int = 4, seed: int = 0,
    weight: float = 0.0, regularizer: str = "L1L2Ratio",
) -> Path:  # fmt: skip
    """A run folder with an untrained autoencoder, evaluated on the test split."""
    torch.manual_seed(seed)
    data = ActivationDataModule(shards, batch_size=512, readers=0, **SPLIT)
    data.setup()
    sae = SparseAutoencoder(data.d_in, d_sae, TopK(k))
    sae.initialize_(data.training_sample())
    with torch.no_grad():  # as if training had moved it
        sae.W_enc.add_(weight * torch.randn(sae.W_enc.shape))
    sae.save(folder / "sae")
    result = evaluated(sae, data, folder)
    if weight:
        result.about["regularizer"] = {"name": regularizer, "weight": weight}
        result.scalars["r2"] = float(result.scalars["r2"] or 0) - weight / 10
    result.about["seed"] = seed
    result.save(folder)
    config = {"seed_everything": seed, "data": {
        "class_path": "lightsae.activations.ActivationDataModule",
        "init_args": {"path": str(shards), **SPLIT}}}  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [
        {"step": step, "epoch": 0, "train/r2": 1 - 1 / (step + 2), "train/loss": 1 / (step + 1)}
        for step in range(9, 200, 10)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@torch.no_grad()
def evaluated(sae: SparseAutoencoder, data: ActivationDataModule, folder: Path) -> EvaluationResult:
    """What `lightsae test` writes, as far as the report reads it."""
    d_sae = sae.d_sae
    embeddings = torch.randn(100_000, 4, generator=torch.Generator().manual_seed(5))
    ms, top = Monosemanticity(d_sae, 4), TopActivating(d_sae, 12)
    firings = torch.zeros(d_sae, dtype=torch.int64)
    classes = torch.zeros(d_sae, len(data.manifest.classes))
    rows, samples = 0, set()
    for batch in data.test_dataloader():
        code = sae.encode(batch.activations)
        fires = code.values > 0
        firings += torch.bincount(code.indices[fires], minlength=d_sae)
        if data.manifest.tokens == "class":
            ms.update(code, embeddings[batch.sample_index])
        top.update(code, batch.sample_index)
        label = batch.label[:, None].expand_as(code.indices)
        ones = torch.ones(int(fires.sum()))
        classes.index_put_((code.indices[fires], label[fires]), ones, accumulate=True)
        rows += len(batch.activations)
        samples |= set(batch.sample_index.tolist())
    scores = ms.compute().scores if data.manifest.tokens == "class" else torch.rand(d_sae).double()
    strongest = top.compute()
    fired = firings > 0
    purity = (classes.max(1).values / classes.sum(1)).double()
    density = torch.histogram((firings[fired].double() / rows).log10().float(), 8, range=(-4, 0))
    return EvaluationResult(
        about={
            "run_dir": str(folder), "step": 200, "split": "test", "rows": rows,
            "images": len(samples), "d_in": sae.d_in, "d_sae": d_sae, "k": sae.selection.k,
            "regularizer": None, "shards": {"path": str(data.path), "digest": data.digest},
            "embeddings": [{"name": E, "d_e": 4, "source": "made up"}], "date": "2026-11-29",
        },
        scalars={
            "r2": 0.9, "l0": float(firings.sum()) / rows, "dead": int((~fired).sum()),
            f"ms_mean/{E}": scores.nanmean(), f"ms_median/{E}": scores.nanmedian(),
            f"ms_mean_with_dead_as_zero/{E}": scores.nan_to_num(0).mean(),
            f"ms_scored/{E}": int((~scores.isnan()).sum()), f"ms_undefined/{E}": 0,
            "purity_binary": purity.nanmean(),
        },
        curves={
            "rank_profile": {"rank": [1.0, 2.0, 4.0], "activation": [0.9, 0.4, 0.1]},
            "k_robustness": {"k": [2.0, 4.0, 8.0], "r2": [0.6, 0.9, 0.88]},
            "firing_density": {"log10_low": density.bin_edges[:-1].tolist(),
                               "log10_high": density.bin_edges[1:].tolist(),
                               "count": density.hist.tolist()},
        },
        latents={
            "firings": firings, f"ms/{E}": scores, "purity_binary": purity,
            "main_class": torch.where(fired, classes.argmax(1), -1),
            "top_values": strongest.values, "top_samples": strongest.samples,
        },
    )  # fmt: skip
