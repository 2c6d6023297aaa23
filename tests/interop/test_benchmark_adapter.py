"""What SAEBench 0.6 and VISAEBench 0.1 ask of an autoencoder, and that the function stays ours."""

import json
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.interop.benchmark_adapter import BenchmarkAdapter
from lightsae.sae import (
    BankTopK,
    BatchTopK,
    GroupMax,
    JumpReLU,
    Normalization,
    Selection,
    SparseAutoencoder,
    TopK,
)
from lightsae.sae.normalization import ROW_WISE

D_IN, D_SAE, K = 8, 40, 5
RULES = [TopK(K), BatchTopK(K), JumpReLU(K), BankTopK(1, 8), GroupMax(8)]
ARCHITECTURES = {"TopK": "topk", "BatchTopK": "batch_topk", "JumpReLU": "jumprelu"}
ONE_SCALE = [name for name in get_args(Normalization) if name not in ROW_WISE]


def make_sae(
    normalization: Normalization = "variance",
    dtype: torch.dtype = torch.float32,
    selection: Selection | None = None,
    **options: Any,
) -> SparseAutoencoder:
    """Decoder rows of any norm, biases and a scale that are not trivial."""
    torch.manual_seed(0)
    rule = TopK(K) if selection is None else selection
    sae = SparseAutoencoder(D_IN, D_SAE, rule, normalization, **options)
    sae.initialize_(3 * torch.randn(100, D_IN) + 2)
    with torch.no_grad():
        sae.W_dec.mul_(torch.rand(D_SAE, 1) + 0.5)
        sae.b_enc.normal_()
    return sae.to(dtype)


def make_adapter(**options: Any) -> BenchmarkAdapter:
    return BenchmarkAdapter(make_sae(**options), "vit", "blocks.7.hook_resid_post")


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return 3 * torch.randn(*shape, D_IN, dtype=dtype) + 2


@pytest.mark.parametrize("normalization", ONE_SCALE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_reconstructions_are_those_of_the_autoencoder(
    normalization: Normalization, dtype: torch.dtype
) -> None:
    sae = make_sae(normalization, dtype)
    adapter, x = BenchmarkAdapter(sae, "vit", "blocks.7"), inputs(1000, dtype=dtype)
    expected = sae(x)
    error = (adapter(x) - expected).norm() / expected.norm()
    assert error < (1e-6 if dtype == torch.float32 else 1e-14)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_every_rule_selects_as_it_does_for_new_inputs(rule: Selection) -> None:
    sae = make_sae(dtype=torch.float64, selection=rule)
    if hasattr(sae.selection, "threshold"):
        sae.selection.threshold.data.fill_(0.7)
    adapter, x = BenchmarkAdapter(sae, "vit", "blocks.7"), inputs(200, dtype=torch.float64)
    torch.testing.assert_close(adapter(x), sae(x), rtol=1e-12, atol=1e-12)
    assert torch.equal(adapter.encode(x) > 0, sae.encode(x).to_dense() > 0)
    torch.testing.assert_close(adapter.encode(x[:1]), adapter.encode(x)[:1])
    assert adapter.cfg.architecture == ARCHITECTURES.get(type(rule).__name__, type(rule).__name__)


def test_codes_are_those_of_the_autoencoder_in_units_of_unit_rows() -> None:
    sae = make_sae(dtype=torch.float64)
    adapter, x = BenchmarkAdapter(sae, "vit", "blocks.7"), inputs(1000, dtype=torch.float64)
    ours, theirs = sae.encode(x).to_dense(), adapter.encode(x)
    assert torch.equal(ours > 0, theirs > 0)
    size = sae.scale * sae.W_dec.norm(dim=1)
    torch.testing.assert_close(theirs, ours * size, rtol=1e-12, atol=0)


@pytest.mark.parametrize("subtracted", [True, False])
def test_the_weights_are_those_that_codes_come_from(subtracted: bool) -> None:
    adapter = make_adapter(dtype=torch.float64, apply_b_dec_to_input=subtracted)
    x = inputs(1000, dtype=torch.float64)
    codes = adapter.encode(x)
    assert adapter.cfg.apply_b_dec_to_input is subtracted
    dense = (x - adapter.b_dec if subtracted else x) @ adapter.W_enc + adapter.b_enc
    fires = codes > 0
    assert fires.any(dim=1).all()
    torch.testing.assert_close(dense[fires], codes[fires], rtol=1e-12, atol=1e-12)


def test_shapes_are_those_the_suites_expect() -> None:
    adapter = make_adapter()
    shapes = {name: tuple(each.shape) for name, each in adapter.named_parameters(recurse=False)}
    assert shapes == {
        "W_enc": (D_IN, D_SAE), "b_enc": (D_SAE,), "W_dec": (D_SAE, D_IN), "b_dec": (D_IN,),
    }  # fmt: skip
    assert isinstance(adapter, nn.Module)
    assert isinstance(adapter.W_dec.data, Tensor)


@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 3, 4), ()], ids=str)
def test_any_leading_dimensions_are_kept(shape: tuple[int, ...]) -> None:
    adapter, x = make_adapter(), inputs(*shape)
    codes = adapter.encode(x)
    assert codes.shape == (*shape, D_SAE)
    assert adapter.decode(codes).shape == adapter(x).shape == (*shape, D_IN)
    flat = adapter.encode(x.reshape(-1, D_IN))
    assert torch.equal(codes.reshape(-1, D_SAE), flat)
    assert (codes != 0).sum(dim=-1).max() == K


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str
)
def test_decoder_rows_pass_the_check_of_saebench(dtype: torch.dtype, tolerance: float) -> None:
    """Its tolerances: 1e-5, and 1e-2 in two bytes."""
    adapter = make_adapter().to(dtype=dtype)
    norms = adapter.W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=tolerance)


def test_edited_codes_decode_linearly() -> None:
    """SCR, TPP and RAVEL set latents to 0 or to another's value."""
    adapter = make_adapter(dtype=torch.float64)
    codes = adapter.encode(inputs(20, dtype=torch.float64))
    edited = codes.clone()
    edited[:, 3] += 2
    change = adapter.decode(edited) - adapter.decode(codes)
    torch.testing.assert_close(change, 2 * adapter.W_dec[3].expand(20, D_IN))


def test_to_moves_and_casts_everything_and_says_so() -> None:
    adapter = make_adapter()
    assert (adapter.dtype, adapter.cfg.dtype) == (torch.float32, "float32")
    same = adapter.to(device="cpu", dtype=torch.bfloat16)
    assert same is adapter
    assert (adapter.dtype, adapter.cfg.dtype) == (torch.bfloat16, "bfloat16")
    assert adapter.device == torch.device("cpu")
    assert adapter.cfg.device == "cpu"
    codes = adapter.encode(inputs(3))
    assert codes.dtype == adapter.decode(codes).dtype == torch.bfloat16


def test_the_configuration_has_what_the_suites_read() -> None:
    cfg = make_adapter().cfg
    read = {
        "model_name": "vit", "hook_name": "blocks.7.hook_resid_post", "hook_layer": 7,
        "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "architecture": "topk",
        "hook_head_index": None, "context_size": None, "prepend_bos": True,
        "normalize_activations": "none", "model_from_pretrained_kwargs": {},
        "dataset_trust_remote_code": False, "seqpos_slice": (None,),
        "apply_b_dec_to_input": True, "activation_fn_kwargs": {"k": K},
    }  # fmt: skip
    assert {name: getattr(cfg, name) for name in read} == read
    assert not callable(cfg.architecture)


def test_the_suite_may_add_to_the_configuration_and_still_write_it() -> None:
    cfg: Any = make_adapter().cfg
    cfg.metadata, cfg.architecture_str, cfg.dataset_trust_remote_code = object(), "topk", True
    written = json.loads(json.dumps(cfg.to_dict()))
    assert written["dataset_trust_remote_code"] is True
    assert "metadata" not in written


def test_nothing_has_a_gradient_and_the_autoencoder_stays_as_it_is() -> None:
    sae = make_sae()
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    adapter = BenchmarkAdapter(sae, "vit", "blocks.7").to(torch.float64)
    assert not any(each.requires_grad for each in adapter.parameters())
    assert not adapter(inputs(3)).requires_grad
    assert adapter.W_enc.norm(dim=0).cpu().numpy().shape == (D_SAE,)
    assert all(torch.equal(sae.state_dict()[name], before[name]) for name in before)
    assert all(each.requires_grad for each in sae.parameters())


def test_a_latent_that_writes_nothing_keeps_its_code() -> None:
    sae = make_sae()
    with torch.no_grad():
        sae.W_dec[3] = 0
        sae.b_enc[3] = 50
    adapter, x = BenchmarkAdapter(sae, "vit", "blocks.7"), inputs(10)
    assert (adapter.encode(x)[:, 3] > 0).all()
    torch.testing.assert_close(adapter(x), sae(x), rtol=1e-5, atol=1e-5)


def test_the_layer_may_be_told() -> None:
    assert BenchmarkAdapter(make_sae(), "vit", "norm", hook_layer=11).cfg.hook_layer == 11
    with pytest.raises(LightsaeError, match="hook_name 'norm' has no number: give hook_layer"):
        BenchmarkAdapter(make_sae(), "vit", "norm")


def test_an_imported_autoencoder_says_itself_where_it_belongs() -> None:
    sae = make_sae()
    sae.provenance = {"format": "saelens", "model": "gpt2-small", "hook": "blocks.8.hook_x"}
    cfg = BenchmarkAdapter(sae).cfg
    assert (cfg.model_name, cfg.hook_name, cfg.hook_layer) == ("gpt2-small", "blocks.8.hook_x", 8)
    with pytest.raises(LightsaeError, match="model_name is not given, and the provenance does not"):
        BenchmarkAdapter(make_sae())


def test_codes_that_depend_on_the_batch_are_refused() -> None:
    with pytest.raises(LightsaeError, match="the threshold of BatchTopK was never learned"):
        BenchmarkAdapter(make_sae(selection=BatchTopK(K)), "vit", "blocks.7")


@pytest.mark.parametrize("normalization", ROW_WISE)
def test_what_a_dense_code_cannot_undo_is_refused(normalization: Normalization) -> None:
    with pytest.raises(LightsaeError, match=f"normalization is {normalization}: a benchmark"):
        BenchmarkAdapter(make_sae(normalization), "vit", "blocks.7")
