"""A transcoder: its formula, every gradient against dense float64 autograd, its files."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics import r2
from lightsae.sae import (
    AuxK,
    BatchTopK,
    L1L2Ratio,
    Matryoshka,
    MultiTopK,
    Normalization,
    Objective,
    OffSupportL1,
    Reconstruction,
    Regularizer,
    SparseAutoencoder,
    TopK,
    Transcoder,
    objective,
)

from .helpers import assert_close

B, D_IN, D_OUT, D_SAE, K, K_AUX = 19, 7, 5, 40, 3, 4
LOSSES: dict[str, Reconstruction | None] = {
    "plain": None,
    "matryoshka": Matryoshka([10, 25]),
    "multi-topk": MultiTopK(multiple=2),
}
REGULARIZERS: dict[str, Regularizer | None] = {
    "none": None,
    "reg1": OffSupportL1(0.3),
    "reg2": L1L2Ratio(0.2),
}


def random_transcoder(skip: bool, selection: Any = None, **options: Any) -> Transcoder:
    """Float64, nothing at its initial value."""
    generator = torch.Generator().manual_seed(0)
    rule = TopK(K) if selection is None else selection
    made = Transcoder(D_IN, D_SAE, rule, d_out=D_OUT, skip=skip, **options).double()
    for tensor in (*made.parameters(), made.b_in):
        draw = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        tensor.data.copy_(0.7 * draw)
    made.scale.fill_(1.7)
    made.target_scale.fill_(0.6)
    return made


def rows(width: int, seed: int, count: int = B) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, dtype=torch.float64, generator=generator)


def dense_loss(
    leaves: dict[str, Tensor], made: Transcoder, found: Objective, loss: str, regularizer: str,
    x: Tensor, y: Tensor, dead: Tensor,
) -> Tensor:  # fmt: skip
    """The loss by its formulas, with every latent written out, at the support that was found."""
    u = x - made.b_in
    a = torch.relu(u @ leaves["W_enc"].T + leaves["b_enc"])
    left = y - u @ leaves["W_skip"].T if "W_skip" in leaves else y
    on = torch.zeros_like(a).scatter(1, found.encoded.indices, 1.0)

    def missed(kept: Tensor) -> Tensor:
        return left - (a * kept) @ leaves["W_dec"] - leaves["b_dec"]

    def cost(kept: Tensor) -> Tensor:
        return missed(kept).square().sum(dim=1).mean()

    reconstruction = cost(on)
    if loss == "matryoshka":
        places = torch.arange(D_SAE)
        reconstruction = cost(on * (places < 10)) + cost(on * (places < 25)) + reconstruction
    if loss == "multi-topk":
        wide = torch.zeros_like(a).scatter(1, a.topk(2 * K).indices, 1.0)
        reconstruction = reconstruction + cost(wide) / 8
    e = missed(on).detach()
    chosen = torch.where(dead, a, -1.0).topk(K_AUX).indices
    e_hat = (a * torch.zeros_like(a).scatter(1, chosen, 1.0)) @ leaves["W_dec"]
    spread = (e - e.mean(dim=0)).square().sum(dim=1).mean()
    total = reconstruction + (e - e_hat).square().sum(dim=1).mean() / spread / 32
    mu = on.amax(dim=0)
    if regularizer == "reg1":
        total = total + 0.3 * (mu * a * (1 - on)).sum(dim=1).mean()
    if regularizer == "reg2":
        m = mu * a
        ratio = m.sum(dim=1) / (m.square().sum(dim=1).sqrt() + 1e-8)
        total = total + 0.2 * torch.where(m.sum(dim=1) > 0, ratio, 0.0).mean()
    return total


@pytest.mark.parametrize("skip", [True, False], ids=["skip", "no-skip"])
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_and_its_gradients_are_those_of_the_dense_formula(
    loss: str, regularizer: str, skip: bool
) -> None:
    made, dead = random_transcoder(skip), torch.arange(D_SAE) % 3 == 0
    x, y = made.normalize(rows(D_IN, 1)).x, made.normalize_targets(rows(D_OUT, 2))
    found = objective(
        made, x, y, regularizer=REGULARIZERS[regularizer], aux_k=AuxK(k_aux=K_AUX),
        dead=lambda encoded: dead, reconstruction=LOSSES[loss],
    )  # fmt: skip
    leaves = {n: p.detach().clone().requires_grad_() for n, p in made.named_parameters()}
    wanted = dense_loss(leaves, made, found, loss, regularizer, x, y, dead)
    assert_close("loss", found.loss, wanted, 1e-10)
    gradients = torch.autograd.grad(found.loss, list(made.parameters()))
    expected = torch.autograd.grad(wanted, list(leaves.values()))
    for name, have, want in zip(leaves, gradients, expected, strict=True):
        assert_close(f"d loss / d {name}", have, want, 1e-10)
    assert ("W_skip" in leaves) == skip


def test_what_it_reconstructs_is_the_target_in_its_own_units() -> None:
    made, x, y = random_transcoder(skip=True), rows(D_IN, 1), rows(D_OUT, 2)
    u = x / 1.7 - made.b_in
    a = torch.relu(u @ made.W_enc.T + made.b_enc)
    z = torch.zeros_like(a).scatter(1, a.topk(K).indices, a.topk(K).values)
    assert made.W_skip is not None
    y_hat = 0.6 * (z @ made.W_dec + made.b_dec + u @ made.W_skip.T)
    torch.testing.assert_close(made(x), y_hat)
    torch.testing.assert_close(made.decode(made.encode(x), x), y_hat)
    parts = objective(made, made.normalize(x).x, made.normalize_targets(y))
    torch.testing.assert_close(made.residual_in_units_of(y, parts.residual), y - y_hat)
    torch.testing.assert_close(made.pre_activations(x).relu(), a)


def test_the_same_loss_at_inputs_and_targets_alike_as_an_autoencoder() -> None:
    sae = SparseAutoencoder(D_IN, D_SAE, TopK(K)).double()
    sae.b_dec.data.copy_(rows(D_IN, 3, 1)[0])
    made = Transcoder(D_IN, D_SAE, TopK(K)).double()
    made.load_state_dict(
        {**sae.state_dict(), "b_in": sae.b_dec.detach(), "target_scale": sae.scale}
    )
    x = rows(D_IN, 1)
    torch.testing.assert_close(objective(made, x, x).loss, objective(sae, x).loss)


def test_a_selection_over_the_batch_has_gradients_everywhere() -> None:
    made = random_transcoder(skip=True, selection=BatchTopK(K))
    found = objective(made, rows(D_IN, 1), rows(D_OUT, 2))
    assert int((found.encoded.values > 0).sum()) == B * K
    found.loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())


@pytest.mark.parametrize("kind", get_args(Normalization))
def test_scales_and_centres_come_from_a_sample(kind: Any) -> None:
    x, y = 3 + 2 * rows(D_IN, 1, 500), 5 * rows(D_OUT, 2, 500) - 4
    made = Transcoder(D_IN, D_SAE, TopK(K), kind, d_out=D_OUT).double()
    made.initialize_(x, targets=y)
    u, v = made.normalize(x).x - made.b_in, made.normalize_targets(y) - made.b_dec
    if kind == "none":
        assert made.scale == made.target_scale == 1
        assert not made.b_in.any() and not made.b_dec.any()
        return
    for centred in (u, v):
        torch.testing.assert_close(centred.mean(dim=0), torch.zeros_like(centred[0]))
    if kind in ("variance", "unit_norm"):
        assert v.square().sum(dim=1).mean().item() == pytest.approx(1)
    if kind in ("centre_scale", "layer_norm", "layer_norm_unbiased"):
        assert v.norm(dim=1).mean().item() == pytest.approx(D_OUT**0.5)


def synthetic(linear: float) -> tuple[Tensor, Tensor]:
    """Inputs, and of each a sparse function: what it has beyond a threshold along 24 directions."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    read, written = (torch.nn.functional.normalize(drawn(24, d), dim=1) for d in (12, 10))
    through, x = drawn(12, 10) / 12**0.5, drawn(4000, 12)
    return x + 1, 2 * (x @ read.T - 1.5).relu() @ written + linear * (x @ through) + 3


def trained_r2(skip: bool, x: Tensor, y: Tensor) -> float:
    """R2 of 1,000 rows after training on the others."""
    torch.manual_seed(0)
    made = Transcoder(12, 64, TopK(4), d_out=10, skip=skip)
    made.initialize_(x[:3000], targets=y[:3000])
    optimizer = torch.optim.Adam(made.parameters(), lr=0.01)
    u, v = made.normalize(x).x, made.normalize_targets(y)
    for step in range(200):
        part = torch.arange(250 * step, 250 * (step + 1)) % 3000
        optimizer.zero_grad()
        objective(made, u[part], v[part]).loss.backward()
        made.project_decoder_gradient_()
        optimizer.step()
        made.normalize_decoder_()
    with torch.no_grad():
        return float(r2(x_hat=made(x[3000:]), x=y[3000:]))


def test_a_linear_part_of_the_target_is_left_to_the_skip() -> None:
    x, y = synthetic(linear=1.0)
    assert trained_r2(True, x, y) > 0.93 > 0.87 > trained_r2(False, x, y) > 0.7


def test_a_sparse_function_is_learned_as_well_without_one() -> None:
    x, y = synthetic(linear=0.0)
    assert trained_r2(False, x, y) == pytest.approx(trained_r2(True, x, y), abs=0.02)


def test_decoder_rows_are_of_the_width_of_the_target_and_of_unit_norm() -> None:
    made = Transcoder(D_IN, D_SAE, TopK(K), d_out=D_OUT, skip=True)
    assert made.W_dec.shape == (D_SAE, D_OUT)
    torch.testing.assert_close(made.W_dec.norm(dim=1), torch.ones(D_SAE))
    assert made.W_skip is not None and made.W_skip.shape == (D_OUT, D_IN)
    assert not made.W_skip.any()
    assert (made.d_in, made.d_out, made.d_sae) == (D_IN, D_OUT, D_SAE)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("reader", [SparseAutoencoder, Transcoder])
def test_a_folder_gives_the_transcoder_that_was_saved(
    reader: Any, skip: bool, tmp_path: Path
) -> None:
    made, x = random_transcoder(skip, normalization="layer_norm"), rows(D_IN, 1)
    made.save(tmp_path)
    found = reader.load(tmp_path)
    assert type(found) is Transcoder
    torch.testing.assert_close(found(x), made(x), rtol=0, atol=0)
    described = json.loads((tmp_path / "sae.json").read_text())
    expected = {"class": "Transcoder", "d_out": D_OUT, "skip": skip}
    assert {key: described[key] for key in expected} == expected


def test_an_autoencoder_is_not_read_as_a_transcoder(tmp_path: Path) -> None:
    SparseAutoencoder(D_IN, D_SAE, TopK(K)).save(tmp_path)
    with pytest.raises(LightsaeError, match=r"holds a SparseAutoencoder, not a Transcoder"):
        Transcoder.load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("class", "Anything", "unknown class 'Anything'"),
        ("d_out", "5", "key 'd_out' is missing or not of type int"),
        ("skip", None, "key 'skip' is missing or not of type bool"),
    ],
)
def test_a_malformed_file_is_refused(
    key: str, value: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = random_transcoder(skip=True)
    right = made._settings()
    monkeypatch.setattr(made, "_settings", lambda: {**right, key: value})
    made.save(tmp_path)
    with pytest.raises(LightsaeError, match=message):
        SparseAutoencoder.load(tmp_path)


def test_what_is_missing_is_named() -> None:
    made, x = random_transcoder(skip=True), rows(D_IN, 1)
    with pytest.raises(LightsaeError, match="a code is decoded with its inputs: give x"):
        made.decode(made.encode(x))
    with pytest.raises(LightsaeError, match="loss of a transcoder is of its targets, got none"):
        objective(made, x)
    with pytest.raises(LightsaeError, match="reconstructs its inputs, got targets"):
        objective(SparseAutoencoder(D_IN, D_SAE, TopK(K)).double(), x, x)
    with pytest.raises(LightsaeError, match="give targets"):
        made.initialize_(x)
    with pytest.raises(LightsaeError, match=r"expects \[rows, d_out = 5\]"):
        made.initialize_(x, targets=x)
    with pytest.raises(LightsaeError, match="d_out must be at least 1, got 0"):
        Transcoder(D_IN, D_SAE, TopK(K), d_out=0)
