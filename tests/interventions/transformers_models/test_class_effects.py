"""`lightsae effects` on shards of an encoder of transformers: its classifier is found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightsae.activations import ActivationDataModule, DataOptions, extract
from lightsae.activations.extraction.models import (
    ModelOptions,
    load_image_classifier,
    load_model,
)
from lightsae.cli import main
from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.interventions import ClassEffects, ZeroAblate, attach
from lightsae.sae import SparseAutoencoder

from ...runs.class_effects.test_command import SPLIT, make_run

tf = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8, "intermediate_size": 32,
}  # fmt: skip
MODELS = [
    pytest.param(lambda: tf.ViTForImageClassification(tf.ViTConfig(**SIZES, num_labels=4)), "vit",
                 id="ViT, whose AutoModel has a pooler"),
    pytest.param(
        lambda: tf.Dinov2ForImageClassification(tf.Dinov2Config(**SIZES, num_labels=4)), "dinov2",
        id="DINOv2",
    ),
]  # fmt: skip


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (400, 16, 16, 3), dtype=np.uint8)


def make(folder: Path, module: Any) -> tuple[Path, Path]:
    """A checkpoint and an evaluated run on its shards."""
    torch.manual_seed(0)
    model, images = folder / "model", folder / "images.npy"
    module.save_pretrained(model)
    np.save(images, pixels())
    extract(
        ModelOptions(name=str(model), library="transformers"),
        DataOptions(arrays=str(images), size=16, mean=[0.5] * 3, std=[0.5] * 3),
        layer=layer_of(model), out=str(folder / "shards"), tokens="class", workers=0, device="cpu",
    )  # fmt: skip
    return model, make_run(folder / "run", folder / "shards", d_in=16)


def layer_of(model: Path) -> str:
    """The second block in the encoder alone."""
    encoder = load_model(ModelOptions(name=str(model), library="transformers"))
    blocks = [name for name, part in encoder.named_modules() if type(part).__name__[-5:] == "Layer"]
    return blocks[1]


@pytest.mark.parametrize(("classifier", "prefix"), MODELS)
def test_effects_are_on_the_logits_of_the_classifier(
    classifier: Callable[[], Any], prefix: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = classifier().eval()
    _, run = make(tmp_path, module)
    often = int(EvaluationResult.load(run).latents["firings"].argmax())
    words = ["--latents", f"[{often}]", "--n_random", "3", "--device", "cpu"]
    assert main(["effects", str(run), *words]) == 0
    found = ClassEffects.load(run)
    assert found.ablation.mean.shape == (1, 4) and found.layer.startswith(f"{prefix}.")

    data = ActivationDataModule(tmp_path / "shards", readers=0, **SPLIT)
    data.setup()
    held = torch.cat([batch.sample_index for batch in data.test_dataloader()]).unique()
    x = torch.from_numpy(pixels())[held].permute(0, 3, 1, 2) / 127.5 - 1
    sae = SparseAutoencoder.load(run / "sae")
    with torch.no_grad(), attach(module, {found.layer: sae}) as attached:
        with attached.record() as recording:
            before = module(x).logits
        fires = recording[found.layer].columns([often])[:, 0, 0] > 0
        with attached.edit(ZeroAblate(often), positions=[0]):
            change = (module(x).logits - before)[fires]
    torch.testing.assert_close(found.ablation.mean[0], change.mean(0), atol=1e-5, rtol=1e-3)


def test_an_encoder_without_a_classifier_is_refused(tmp_path: Path, capfd: Any) -> None:
    model, run = make(tmp_path, tf.Dinov2Model(tf.Dinov2Config(**SIZES)))
    assert main(["effects", str(run), "--latents", "[0]", "--device", "cpu"]) == 1
    assert capfd.readouterr().err.strip().splitlines()[-1] == (
        f"lightsae effects: error: model.name {model}: is no classifier, the checkpoint lacks its "
        "classifier.bias"
    )


def test_a_text_model_and_weights_of_another_file_are_refused(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    tf.BertModel(tf.BertConfig(**small, intermediate_size=16)).save_pretrained(tmp_path)
    options = ModelOptions(name=str(tmp_path), library="transformers")
    with pytest.raises(LightsaeError, match="transformers makes no classifier of images of it: "):
        load_image_classifier(options)
    options.pretrained = False
    with pytest.raises(LightsaeError, match=r"expected no model\.weights and no model\.pretrained"):
        load_image_classifier(options)
