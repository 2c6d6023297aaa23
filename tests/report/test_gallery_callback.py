"""A gallery every so many steps, in a real fit."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from lightsae.activations import ActivationDataModule
from lightsae.cli import main
from lightsae.dictionaries import Vocabulary, name_latents
from lightsae.errors import LightsaeError
from lightsae.report import GalleryCallback
from lightsae.runs import quieten
from lightsae.sae import TopK
from lightsae.training import SAEModule

from ..training.helpers import finish, start_pair
from .helpers import write_images, write_shards

CLASSES = ["a", "b"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    images = write_images(folder / "images.npz", 200, CLASSES)
    return write_shards(folder / "shards", images, 200, CLASSES)


def fit(shards: Path, folder: Path, callbacks: list, **data) -> SAEModule:
    quieten()
    torch.manual_seed(0)
    module = SAEModule(d_sae=32, selection=TopK(4))
    trainer = Trainer(
        default_root_dir=folder, max_epochs=2, accelerator="cpu", logger=False, callbacks=callbacks,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    settings = {"val_fraction": 0.2, "test_fraction": 0.2, "readers": 0, "batch_size": 20} | data
    trainer.fit(module, ActivationDataModule(str(shards), **settings))
    return module


def test_galleries_of_the_steps_asked_for_and_of_the_end(shards, tmp_path):
    fit(shards, tmp_path, [GalleryCallback(every=5, latents=3, images=4)])
    drawn = sorted(path.name for path in (tmp_path / "gallery").iterdir())
    assert drawn == ["step-00000005.png", "step-00000010.png", "step-00000012.png"]
    sizes = set()
    for name in drawn:
        with Image.open(tmp_path / "gallery" / name) as image:
            sizes.add(image.size)
    assert len(sizes) == 1


def test_training_is_the_same_with_and_without(shards, tmp_path):
    with_it = fit(shards, tmp_path / "a", [GalleryCallback(every=1, latents=2)])
    without = fit(shards, tmp_path / "b", [])
    for name, weight in with_it.sae.state_dict().items():
        assert torch.equal(weight, without.sae.state_dict()[name]), name


def test_without_a_validation_split_the_training_rows_are_shown(shards, tmp_path):
    fit(shards, tmp_path, [GalleryCallback(every=100, latents=2)], val_fraction=0.0)
    assert [path.name for path in (tmp_path / "gallery").iterdir()] == ["step-00000016.png"]


def test_shards_that_do_not_say_their_images_end_it_before_training(tmp_path):
    shards = write_shards(tmp_path / "shards", None, 200, CLASSES)
    with pytest.raises(LightsaeError, match="do not say which images they are of; its path says"):
        fit(shards, tmp_path, [GalleryCallback()])


def write_config(tmp_path: Path, shards: Path, every: int) -> Path:
    config = tmp_path / "config.yaml"
    config.write_text(f"""
trainer:
  accelerator: cpu
  max_epochs: 1
  enable_progress_bar: false
  enable_model_summary: false
  log_every_n_steps: 1
  callbacks:
    - class_path: lightsae.report.GalleryCallback
      init_args: {{every: {every}, latents: 2}}
model:
  class_path: lightsae.training.SAEModule
  init_args: {{d_sae: 32, selection: {{class_path: lightsae.sae.TopK, init_args: {{k: 4}}}}}}
data:
  class_path: lightsae.activations.ActivationDataModule
  init_args: {{path: {shards}, batch_size: 50, val_fraction: 0.2, readers: 0}}
""")
    return config


def test_by_config(shards, tmp_path):
    config = write_config(tmp_path, shards, every=1000)
    run = tmp_path / "run"
    assert main(["fit", "--config", str(config), "--run_dir", str(run)]) == 0
    assert len(list((run / "gallery").iterdir())) == 1


def test_of_several_processes_one_draws_and_no_other_waits_for_it(shards, tmp_path):
    config, run = write_config(tmp_path, shards, every=1), tmp_path / "run"
    processes = start_pair("fit", "--config", config, "--run_dir", run)
    ended = finish(*processes)
    for process in processes:
        process.kill()
    assert ended == [0, 0]
    assert len(list((run / "gallery").iterdir())) == 2


def test_latents_carry_the_words_that_their_rows_are_parallel_to(shards, tmp_path, monkeypatch):
    drawn = []

    def draw(images, indices, values, titles, path, **text):
        drawn.append(titles)
        return path

    monkeypatch.setattr("lightsae.report.gallery_callback.top_images_gallery", draw)
    words = Vocabulary(["here $x$ and a long way from there", "zig\n"], torch.randn(2, 8))
    words.save(tmp_path / "words.safetensors")
    callback = GalleryCallback(
        every=100, latents=32, images=2, vocabulary=str(tmp_path / "words.safetensors")
    )
    module = fit(shards, tmp_path, [callback])
    named = name_latents(module.sae.W_dec.detach(), words)
    assert drawn == [callback._titles(module, torch.arange(32))]
    for latent, title in enumerate(drawn[0]):
        cosine = named.similarity[latent].item()
        word = {"here $x$ and a long way from there": "here $x$ and a lo\u2026", "zig\n": "zig\\n"}
        name = named.names[latent]
        told = f"\n{word[name]} {cosine:.2f}" if name else ""
        assert title == f"latent {latent}{told}"


def test_a_vocabulary_of_another_width_is_refused_before_training(shards, tmp_path):
    Vocabulary(["a"], torch.ones(1, 3)).save(tmp_path / "words.safetensors")
    callback = GalleryCallback(vocabulary=str(tmp_path / "words.safetensors"))
    with pytest.raises(LightsaeError, match="has directions of width 3, decoder rows have 8"):
        fit(shards, tmp_path, [callback])
