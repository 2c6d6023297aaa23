"""`lightsae effects` on the digits of the quickstart, at reduced size."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from lightsae.activations import ActivationDataModule, Manifest
from lightsae.activations.extraction.models import load_model
from lightsae.activations.extraction.models.options import ModelOptions
from lightsae.activations.sources.digits import Digits, DigitsSource
from lightsae.cli import main
from lightsae.evaluation import EvaluationResult, evaluate
from lightsae.interventions import ClassEffects, ZeroAblate, attach
from lightsae.runs.class_effects.shards_model import shards_model
from lightsae.sae import SparseAutoencoder, TopK

STAND_INS = f"{__package__}.stand_ins"
SPLIT = {"val_fraction": 0.1, "test_fraction": 0.05, "split_seed": 0}
Ask = Callable[..., str]


def make_run(folder: Path, shards: Path, d_in: int = 64) -> Path:
    """An evaluated run with an autoencoder that was not trained."""
    torch.manual_seed(0)
    data = ActivationDataModule(shards, readers=0, **SPLIT)
    data.setup()
    sae = SparseAutoencoder(d_in, 48, TopK(6))
    sae.initialize_(data.training_sample())
    sae.save(folder / "sae")
    evaluate(sae, data, show_progress=False).save(folder)
    config = {"data": {"class_path": "lightsae.activations.ActivationDataModule",
                       "init_args": {"path": str(shards), **SPLIT}}}  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("digits")
    shards = folder / "digits"
    DigitsSource(layer="blocks.1", copies=2, training_steps=40).write(shards)
    arguments = {"folder": str(folder / "digits-encoders")}
    run = make_run(folder / "run", shards)
    model = ["--model.module", f"{STAND_INS}.briefly_trained",
             "--model.arguments", json.dumps(arguments)]  # fmt: skip
    return SimpleNamespace(folder=folder, shards=shards, run=run, model=model, arguments=arguments)


@pytest.fixture
def error(capfd: pytest.CaptureFixture[str]) -> Ask:
    """The one line that a command ends with."""

    def ask(*words: object, status: int = 1) -> str:
        assert main(["effects", *map(str, words)]) == status
        return capfd.readouterr().err.strip().splitlines()[-1]

    return ask


def test_effects_are_those_on_the_class_tokens_of_the_test_split(made, capfd) -> None:
    words = [str(made.run), "--latents", "3", "--n_random", "4", "--batch_size", "50"]
    assert main(["effects", *words, *made.model]) == 0
    assert "effects of 3 latents of blocks.1 over 180 images" in capfd.readouterr().err
    found = ClassEffects.load(made.run)
    result = EvaluationResult.load(made.run)
    scores = result.latents["ms/own_input"].nan_to_num(-1)
    often = result.latents["firings"] >= 10
    assert found.latents.tolist() == scores.where(often, -1).topk(3).indices.tolist()
    assert torch.equal(found.firing, result.latents["firings"][found.latents])
    assert found.images == result.about["images"] == 180

    digits, sae = Digits(2), SparseAutoencoder.load(made.run / "sae")
    model = load_model(
        ModelOptions(module=f"{STAND_INS}.briefly_trained", arguments=made.arguments)
    )
    data = ActivationDataModule(made.shards, readers=0, **SPLIT)
    data.setup()
    held = set(torch.cat([batch.sample_index for batch in data.test_dataloader()]).tolist())
    x = digits.images[torch.tensor([int(each) in held for each in digits.original_index])]
    latent = int(found.latents[0])
    with torch.no_grad(), attach(model, {"blocks.1": sae}) as attached:
        with attached.record() as recording:
            before = model(x)
        fires = recording["blocks.1"].columns([latent])[:, 0, 0] > 0
        with attached.edit(ZeroAblate(latent), positions=[0]):
            change = (model(x) - before)[fires]
    torch.testing.assert_close(found.ablation.mean[0], change.mean(0), atol=1e-4, rtol=1e-3)


def test_latents_are_named_and_the_file_is_replaced(made) -> None:
    words = ["effects", str(made.run), "--n_random", "3", *made.model]
    firings = EvaluationResult.load(made.run).latents["firings"]
    latents = firings.topk(2).indices.tolist()
    assert main([*words, "--latents", str(latents)]) == 0
    first = (made.run / "class_effects.safetensors").read_bytes()
    assert ClassEffects.load(made.run).latents.tolist() == latents
    assert main([*words, "--latents", str(latents)]) == 0
    assert (made.run / "class_effects.safetensors").read_bytes() == first


def test_patch_tokens_leave_the_class_token_alone_and_pooled_ones_are_refused(
    made, tmp_path, error
) -> None:
    for tokens in ("patch", "pooled"):
        source = DigitsSource(
            made.arguments["folder"], layer="blocks.1", tokens=tokens, copies=1, training_steps=40
        )
        source.write(tmp_path / tokens)
    run = make_run(tmp_path / "run", tmp_path / "patch")
    words = [run, "--latents", "1", "--n_random", "3", *made.model]
    assert main(["effects", *map(str, words)]) == 0
    found = ClassEffects.load(run)
    patches = ActivationDataModule(tmp_path / "patch", readers=0, **SPLIT)
    patches.setup()
    sae, latent, images = SparseAutoencoder.load(run / "sae"), int(found.latents[0]), set()
    with torch.no_grad():
        for batch in patches.test_dataloader():
            code = sae.encode(batch.activations)
            fires = ((code.indices == latent) & (code.values > 0)).any(1)
            images |= set(batch.sample_index[fires].tolist())
    assert found.firing.tolist() == [len(images)]
    run = make_run(tmp_path / "other", tmp_path / "pooled")
    assert error(run, *made.model) == (
        "lightsae effects: error: the shards hold means over the tokens of blocks.1: no token has "
        "a code of its own that could be changed"
    )


def test_other_models_and_images_are_refused(made, tmp_path, error) -> None:
    assert error(made.run) == (
        "lightsae effects: error: the shards are of model 'digits-vit', which no library knows, "
        "and code is not imported because a file says so: give --model.name or --model.module"
    )
    other = made.arguments | {"steps": 1}
    found = error(made.run, *made.model[:3], json.dumps(other))
    assert "briefly_trained has other weights than the one that the shards" in found
    assert error(made.run, "--latents", "[48]", *made.model).endswith(
        "latents must lie in [0, d_sae = 48), got 48"
    )
    images = ["--images.dataset", "lightsae.activations.sources.digits.Digits"]
    assert error(made.run, *made.model, *images).endswith(
        "holds other images than the shards were extracted from"
    )
    assert "n_random is 60: besides latent" in error(made.run, "--n_random", 60, *made.model)
    assert "evaluation.json" in error(tmp_path / "no_run", *made.model)
    assert '"latents"' in error(made.run, "--latents", "0", *made.model, status=2)
    assert not (tmp_path / "no_run").exists()


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(
    made, error, monkeypatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert error(made.run) == (
        f"lightsae effects: error: {made.run} cannot be written, where the effects are kept"
    )


def test_images_that_lack_some_of_the_test_split_are_refused(made, error, monkeypatch) -> None:
    from lightsae.runs.class_effects import measure_run

    load = measure_run.load_images

    def half(*given):
        found, told = load(*given)
        found.original_index = found.original_index % 2
        return found, told

    monkeypatch.setattr(measure_run, "load_images", half)
    assert "lacks images of the test split, expected those that" in error(made.run, *made.model)


def test_a_model_without_logits_is_refused(made, error) -> None:
    model = ["--model.module", f"{STAND_INS}.Headless", *made.model[2:]]
    assert error(made.run, *model) == (
        "lightsae effects: error: the model Headless is no classifier: it gives [1, 17, 64], "
        "expected logits [B, classes]"
    )


def test_shards_of_arrays_have_no_model(made, tmp_path, error) -> None:
    manifest = Manifest.load(made.shards)
    manifest.model = ""
    copy = tmp_path / "shards"
    copy.mkdir()
    for path in made.shards.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    manifest.save(copy)
    run = make_run(tmp_path / "run", copy)
    assert error(run) == (
        "lightsae effects: error: the shards do not say which model they are of: give --model.name "
        "or --model.module"
    )


def test_a_file_names_models_but_neither_code_nor_arguments() -> None:
    timm = Manifest(4, "float16", model="vit_small_patch14_dinov2.lvd142m")
    assert shards_model(timm, ModelOptions(weights="w.safetensors")).name == timm.model
    timm.settings["arguments"] = {"img_size": 32}
    with pytest.raises(Exception, match=r"--model.arguments '\{\"img_size\": 32\}' gives them"):
        shards_model(timm, ModelOptions())
    given = ModelOptions(arguments={"img_size": 32})
    assert shards_model(timm, given).arguments == {"img_size": 32}
    ours = Manifest(4, "float16", model="lightsae.cli.main")
    with pytest.raises(Exception, match="code is not imported because a file says so"):
        shards_model(ours, ModelOptions())
