"""The gallery of the study: test images per latent, from most to least monosemantic."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from lightsae.demo.data import ENCODER, load_images
from lightsae.demo.study import Fit, Setting, encode_split, open_data
from lightsae.metrics import Monosemanticity, TopActivating
from lightsae.report import top_images_gallery
from lightsae.sae import SparseAutoencoder

LATENTS, IMAGES = 8, 10


def draw_galleries(out: Path, fits: list[Fit], setting: Setting) -> list[Path]:
    """One PNG per fit; latents with enough images, evenly spaced in the ranking by MS."""
    images = load_images(setting)
    loader = open_data(setting, seed=0).test_dataloader()
    embeddings = load_file(setting.embeddings)["embeddings"]
    paths = []
    for fit in fits:
        sae = SparseAutoencoder.load(out / "saes" / fit.folder)
        top = TopActivating(sae.d_sae, IMAGES)
        ms = Monosemanticity(sae.d_sae, embeddings.shape[1])
        for code, _, image in encode_split(sae, loader, setting):
            top.update(code, image)
            ms.update(code, embeddings[image])
        scores, strongest = ms.compute().scores, top.compute()
        often = (~scores.isnan() & (strongest.samples[:, -1] >= 0)).nonzero().squeeze(1)
        if len(often) == 0:
            continue
        ranked = often[scores[often].argsort(descending=True, stable=True)]
        count = min(LATENTS, len(ranked))
        shown = ranked[torch.linspace(0, len(ranked) - 1, count).round().long()]
        paths.append(
            top_images_gallery(
                images,
                strongest.samples[shown],
                strongest.values[shown],
                [f"latent {latent}\nMS {scores[latent]:.2f}" for latent in shown.tolist()],
                out / f"gallery-{fit.folder}.png",
                heading=f"{fit.variant}: strongest test images of {count} latents, by MS",
                note=f"of latents that fire on {IMAGES} images or more, from the most to the least "
                f"monosemantic under {ENCODER}; lambda = {fit.weight:g}",
            )
        )
    return paths
