"""What an autoencoder cannot represent is refused with a reason, before anything is built."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightsae.errors import LightsaeError
from lightsae.interop import export_foreign, load_foreign
from lightsae.interop.benchmark_adapter import BenchmarkAdapter
from lightsae.interop.registry import format_of
from lightsae.sae import TopK, Transcoder

from .ours import ours


def _written(name: str, folder: Path, rule: str = "TopK", **settings: Any) -> Path:
    """A folder of a format with settings in its configuration changed; None removes one."""
    export_foreign(ours(rule), folder, name)
    path = next(folder.glob("*.json"))
    config = json.loads(path.read_text())
    part = config["trainer"] if name == "dictionary_learning" else config
    part |= settings
    path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("saelens", {"architecture": "gated"}, "whose gate is a second encoder"),
        ("saelens", {"architecture": "batchtopk"}, "write it with save_inference_model"),
        ("saelens", {"architecture": "temporal"}, "expected standard, topk or jumprelu"),
        ("saelens", {"normalize_activations": "covariance_whitening"}, "SAELens folds others"),
        ("saelens", {"d_sae": 33}, r"shape \[8, 32\], expected \[d_in = 8, d_sae = 33\]"),
        ("saelens", {"k": 33}, "k = 33 is larger than d_sae = 32"),
        ("saelens", {"metadata": {}, "activation_fn": "tanh-relu"}, "activation_fn is 'tanh-relu'"),
        ("saelens", {"metadata": {}, "activation_fn": "topk"}, "'activation_fn_kwargs' is missing"),
        ("sparsify", {"transcode": 1}, "'transcode' is 1, expected bool"),
        ("sparsify", {"skip_connection": True}, "tensor 'W_skip' is missing"),
        ("sparsify", {"signed": True}, "signed is set"),
        (
            "sparsify",
            {"activation": "relu"},
            "activation is 'relu', expected one of topk, groupmax",
        ),
        ("sparsify", {"activation": "groupmax", "k": 5}, "sparsify: .*5"),
        ("dictionary_learning", {"dict_class": "GatedAutoEncoder"}, "dict_class is 'GatedAuto"),
        ("dictionary_learning", {"k": 5}, "tensor 'k' is 4, config.json has k = 5"),
        ("dictionary_learning", {"dict_class": "BatchTopKSAE"}, r"never learned \(-1\)"),
        ("dictionary_learning", {"dict_class": "JumpReluAutoEncoder"}, "unknown tensor"),
    ],
)
def test_a_setting_that_has_no_place_is_named(
    name: str, settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = _written(name, tmp_path / name, **settings)
    with pytest.raises(LightsaeError, match=says):
        load_foreign(folder, name)


def test_a_factor_that_was_finetuned_is_refused_and_one_of_ones_is_nothing(tmp_path: Path) -> None:
    folder = _written("saelens", tmp_path / "sae")
    path = folder / "sae_weights.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"scaling_factor": torch.ones(32)}, path)
    load_foreign(folder)
    save_file(tensors | {"scaling_factor": torch.full((32,), 1.1)}, path)
    with pytest.raises(LightsaeError, match="scaling_factor is not 1"):
        load_foreign(folder)


def test_a_backup_within_a_run_is_refused(tmp_path: Path) -> None:
    folder = _written("dictionary_learning", tmp_path / "trainer_0")
    content = {"step": 3, "ae": torch.load(folder / "ae.pt"), "norm_factor": 1.5}
    torch.save(content, folder / "ae.pt")
    with pytest.raises(LightsaeError, match="is a backup of a run that goes on"):
        load_foreign(folder)


def test_a_threshold_that_is_not_known_cannot_be_written(tmp_path: Path) -> None:
    sae = ours("BatchTopK")
    sae.selection.threshold.fill_(-1)  # type: ignore[attr-defined]
    for name in ("saelens", "dictionary_learning"):
        with pytest.raises(LightsaeError, match="has no threshold yet: lightsae calibrate"):
            export_foreign(sae, tmp_path / name, name)


def test_files_of_two_formats_in_a_folder_are_not_guessed(tmp_path: Path) -> None:
    folder = _written("saelens", tmp_path / "sae")
    _written("sparsify", tmp_path / "other")
    (tmp_path / "other" / "sae.safetensors").rename(folder / "sae.safetensors")
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | {"k": 4}))
    with pytest.raises(LightsaeError, match="may be of saelens, sparsify: say which with --format"):
        format_of(folder)


def test_the_configuration_of_an_import_does_not_stand_above_what_is_exported(
    tmp_path: Path,
) -> None:
    """What says which function it is comes from the autoencoder, whatever it was read from."""
    for name in ("saelens", "sparsify", "dictionary_learning"):
        found = load_foreign(_written(name, tmp_path / name, extra="kept"))
        found.selection.k = 2
        export_foreign(found, tmp_path / f"{name} again", name)
        again = load_foreign(tmp_path / f"{name} again")
        assert again.selection.k == 2
    config = json.loads((tmp_path / "sparsify again" / "cfg.json").read_text())
    assert config["extra"] == "kept"


def test_provenance_that_makes_no_sense_stops_nothing(tmp_path: Path) -> None:
    for name in ("saelens", "sparsify", "dictionary_learning"):
        for config in ([], {"metadata": [1], "trainer": 3}, {"metadata": {"hook_name": None}}):
            sae = ours("TopK")
            sae.provenance = {"format": name, "config": config, "version": 4}
            folder = tmp_path / f"{name} {len(list(tmp_path.iterdir()))}"
            export_foreign(sae, folder, name)
            assert load_foreign(folder).selection.k == sae.selection.k


def test_a_benchmark_takes_no_transcoder() -> None:
    with pytest.raises(LightsaeError, match="takes no transcoder"):
        BenchmarkAdapter(Transcoder(4, 16, TopK(2), d_out=3), "vit", "blocks.3.hook_x")
