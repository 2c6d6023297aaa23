"""SAELens 6 writes and we read, we write and SAELens reads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interop import export_foreign, load_foreign
from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder, TopK

from ..helpers import assert_agrees, assert_same, relative, rows
from ..ours import RULES, ours
from .helpers import peer

sae_lens = peer("sae_lens")
D_IN, D_SAE, K = 24, 96, 5
SIZES: dict[str, Any] = {"d_in": D_IN, "d_sae": D_SAE}


def _perturbed(sae: Any) -> Any:
    """Every parameter away from where it starts; rows of the decoder of many lengths."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
            if name == "threshold":
                parameter.abs_().add_(0.3)
    return sae


def _inference(kind: str, **settings: Any) -> Any:
    sae_class, config_class = sae_lens.registry.get_sae_class(kind)
    return _perturbed(sae_class(config_class(**SIZES, **settings)))


def _trained(kind: str, **settings: Any) -> Any:
    """A few steps of SAELens' own objective."""
    torch.manual_seed(0)
    sae_class, config_class = sae_lens.registry.get_sae_training_class(kind)
    sae = sae_class(config_class(**SIZES, **settings))
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-2)
    for step in range(8):
        given = sae_lens.saes.sae.TrainStepInput(
            sae_in=rows(D_IN, 256),
            coefficients=dict.fromkeys(sae.get_coefficients(), 0.1),
            dead_neuron_mask=None,
            n_training_steps=step,
            is_logging_step=False,
        )
        sae.training_forward_pass(given).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return sae


CASES: dict[str, Callable[[], Any]] = {
    "standard": lambda: _inference("standard"),
    "topk": lambda: _inference("topk", k=K),
    "topk, decoder norms": lambda: _inference("topk", k=K, rescale_acts_by_decoder_norm=True),
    "jumprelu": lambda: _inference("jumprelu"),
    "no subtraction": lambda: _inference("topk", k=K, apply_b_dec_to_input=False),
    "norm in": lambda: _inference("topk", k=K, normalize_activations="expected_average_only_in"),
    "constant norm": lambda: _inference("topk", k=K, normalize_activations="constant_norm_rescale"),
    "layer norm": lambda: _inference("topk", k=K, normalize_activations="layer_norm"),
    "layer norm, jumprelu": lambda: _inference("jumprelu", normalize_activations="layer_norm"),
    "trained standard": lambda: _trained("standard"),
    "trained topk": lambda: _trained("topk", k=K),
    "trained jumprelu": lambda: _trained("jumprelu"),
    "trained batchtopk": lambda: _trained("batchtopk", k=K),
    "trained matryoshka": lambda: _trained("matryoshka_batchtopk", k=K, matryoshka_widths=[24, 48]),
}


@pytest.fixture(params=CASES)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder that SAELens wrote."""
    sae = CASES[request.param]()
    folder = tmp_path / "theirs"
    getattr(sae, "save_inference_model", sae.save_model)(folder)
    return folder


def _read_there(folder: Path) -> Any:
    return sae_lens.SAE.load_from_disk(folder).eval()


def test_theirs_is_the_same_function_here(written: Path) -> None:
    x, theirs = rows(D_IN), _read_there(written)
    assert_agrees(load_foreign(written), x, theirs.encode(x), theirs(x))


def test_theirs_comes_back_as_it_was(written: Path, tmp_path: Path) -> None:
    x, sae = rows(D_IN), load_foreign(written)
    export_foreign(sae, tmp_path / "back", "saelens")
    theirs = _read_there(tmp_path / "back")
    assert_agrees(sae, x, theirs.encode(x), theirs(x))
    again = load_foreign(tmp_path / "back")
    if sae.normalization == "unit_norm":  # a factor of sqrt(d_in) in and out again
        for name, tensor in sae.state_dict().items():
            torch.testing.assert_close(again.state_dict()[name], tensor, rtol=1e-6, atol=1e-7)
    else:
        assert_same(again, sae)


@pytest.mark.parametrize("rule", [name for name in RULES if name != "GroupMax"])
@pytest.mark.parametrize(
    ("kind", "fold"),
    [
        ("variance", False),
        ("variance", True),
        ("none", False),
        ("centre_scale", True),
        ("unit_norm", False),
        ("layer_norm_unbiased", False),
    ],
)
def test_ours_is_the_same_function_there(rule: str, kind: str, fold: bool, tmp_path: Path) -> None:
    sae = ours(rule, kind, d_in=D_IN, d_sae=D_SAE)
    export_foreign(sae, tmp_path / "sae", "saelens", fold=fold)
    config = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    assert config["apply_b_dec_to_input"] is not fold
    theirs, x = _read_there(tmp_path / "sae"), rows(D_IN)
    assert_agrees(sae, x, theirs.encode(x), theirs(x))
    assert type(load_foreign(tmp_path / "sae").selection) is type(sae.selection)


def test_a_gated_autoencoder_is_refused(tmp_path: Path) -> None:
    _inference("gated").save_model(tmp_path)
    with pytest.raises(LightsaeError, match=r"architecture is 'gated'.*second encoder"):
        load_foreign(tmp_path)


def test_a_training_checkpoint_is_refused(tmp_path: Path) -> None:
    _trained("batchtopk", k=K).save_model(tmp_path)
    with pytest.raises(LightsaeError, match="write it with save_inference_model"):
        load_foreign(tmp_path)


def test_batchtopk_keeps_its_k_and_names_stay(tmp_path: Path) -> None:
    sae = _trained("batchtopk", k=K)
    sae.cfg.metadata.model_name, sae.cfg.metadata.hook_name = "vit", "blocks.11"
    sae.save_inference_model(tmp_path / "theirs")
    found = load_foreign(tmp_path / "theirs")
    assert isinstance(found.selection, BatchTopK) and found.selection.k == K
    assert (found.provenance["model"], found.provenance["hook"]) == ("vit", "blocks.11")
    export_foreign(found, tmp_path / "back", "saelens")
    metadata = _read_there(tmp_path / "back").cfg.metadata
    assert (metadata.model_name, metadata.hook_name) == ("vit", "blocks.11")


def test_its_own_reader_of_sparsify_cannot_read_what_sparsify_writes(tmp_path: Path) -> None:
    """W_dec is turned round on reading, and b_dec is not subtracted."""
    sparsify = peer("sparsify")
    coder = sparsify.SparseCoder(D_IN, sparsify.SparseCoderConfig(num_latents=D_SAE, k=K))
    folder = tmp_path / "layers.3"
    coder.save_to_disk(folder)
    read = sae_lens.loading.pretrained_sae_loaders.sparsify_disk_loader
    config, weights = read(folder)
    assert weights["W_dec"].shape == (D_IN, D_SAE)
    assert config["apply_b_dec_to_input"] is False
    with pytest.raises(RuntimeError, match="size mismatch for W_dec"):
        sae_lens.SAE.load_from_disk(folder, converter=read)
    export_foreign(load_foreign(folder), tmp_path / "ours", "saelens")
    theirs, x = _read_there(tmp_path / "ours"), rows(D_IN)
    assert relative(theirs(x), coder(x).sae_out) < 1e-5


def test_configurations_before_version_6_are_read_as_it_reads_them(tmp_path: Path) -> None:
    sae = _inference("topk", k=K)
    sae.save_model(tmp_path)
    old = {
        "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "hook_point": "blocks.3.hook_mlp_out",
        "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "model_name": "gpt2",
        "normalize_activations": False,
    }  # fmt: skip
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    x, found = rows(D_IN), load_foreign(tmp_path)
    assert_agrees(found, x, sae.encode(x), sae(x))
    assert found.provenance["hook"] == "blocks.3.hook_mlp_out"


def test_the_rules_of_the_classes(tmp_path: Path) -> None:
    for kind, rule in (("standard", JumpReLU), ("topk", TopK), ("jumprelu", JumpReLU)):
        settings = {"k": K} if kind == "topk" else {}
        _inference(kind, **settings).save_model(tmp_path / kind)
        found: SparseAutoencoder = load_foreign(tmp_path / kind)
        assert isinstance(found.selection, rule)
