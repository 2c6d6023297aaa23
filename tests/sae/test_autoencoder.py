"""The autoencoder: where it starts, what it keeps, what it refuses."""

import copy
import math
from typing import Any

import pytest
import torch
from lightsae_kernels import ArgumentError
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import (
    L1L2Ratio,
    OffSupportL1,
    Regularizer,
    SparseAutoencoder,
    TopK,
    objective,
)
from lightsae.sae.initialization import Centre

from .helpers import untied

NARROW = [torch.float16, torch.bfloat16]
DTYPES = [*NARROW, torch.float32, torch.float64]


def batch(rows: int = 20, d_in: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, d_in, dtype=torch.float64, generator=generator)


def row_norms(sae: SparseAutoencoder) -> Tensor:
    return torch.linalg.vector_norm(sae.W_dec.detach().double(), dim=1)


def test_starts_with_unit_rows_and_the_encoder_as_decoder_transposed() -> None:
    sae = SparseAutoencoder(6, 50, TopK(3))
    torch.testing.assert_close(row_norms(sae), torch.ones(50).double())
    assert torch.equal(sae.W_enc, sae.W_dec)
    assert not sae.b_enc.any() and not sae.b_dec.any()
    assert sae.scale == 1


def test_encoder_and_decoder_are_untied_from_the_first_step() -> None:
    sae = SparseAutoencoder(6, 50, TopK(3))
    before = sae.W_dec.detach().clone()
    sae.W_enc.data.zero_()
    assert torch.equal(sae.W_dec, before)


def test_its_state_is_four_parameters_and_the_scale() -> None:
    sae = SparseAutoencoder(6, 50, TopK(3))
    assert {n: tuple(p.shape) for n, p in sae.named_parameters()} == {
        "W_enc": (50, 6),
        "b_enc": (50,),
        "W_dec": (50, 6),
        "b_dec": (6,),
    }
    assert set(sae.state_dict()) - {n for n, _ in sae.named_parameters()} == {"scale"}


def test_selects_32_unless_told_otherwise() -> None:
    assert SparseAutoencoder(4, 40).selection.k == 32


@pytest.mark.parametrize("centre", ["mean", "geometric_median"])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_scaled_inputs_make_the_mean_predictors_loss_1(centre: Centre, offset: float) -> None:
    x = 7 * batch() + offset
    sae = SparseAutoencoder(6, 50, TopK(3)).double()
    sae.initialize_(x, centre)
    scaled = x / sae.scale
    loss = (scaled - scaled.mean(dim=0)).square().sum(dim=1).mean()
    assert loss.item() == pytest.approx(1)


def test_an_autoencoder_that_says_nothing_predicts_the_mean_in_the_units_of_the_input() -> None:
    x = 7 * batch() + 1e3
    sae = SparseAutoencoder(6, 50, TopK(3)).double()
    sae.initialize_(x)
    sae.b_enc.data.fill_(-1e6)
    torch.testing.assert_close(sae(x), x.mean(dim=0).expand_as(x))
    assert objective(sae, x / sae.scale).reconstruction.item() == pytest.approx(1)


def test_a_complete_dictionary_reconstructs_in_the_units_of_the_input() -> None:
    x = 7 * batch() + 1e3
    sae = SparseAutoencoder(6, 12, TopK(12)).double()
    sae.initialize_(x)
    both = torch.cat([torch.eye(6), -torch.eye(6)]).double()
    sae.W_enc.data, sae.W_dec.data = both, both.clone()
    torch.testing.assert_close(sae(x), x)


def test_the_scale_of_the_data_does_not_change_the_code() -> None:
    codes = []
    for factor in (1.0, 64.0):
        torch.manual_seed(0)
        sae = SparseAutoencoder(6, 50, TopK(3)).double()
        sae.initialize_(batch() * factor)
        codes.append(sae.encode(batch() * factor))
    assert torch.equal(codes[0].indices, codes[1].indices)
    torch.testing.assert_close(codes[0].values, codes[1].values)


@pytest.mark.parametrize(
    "sample", [torch.zeros(3, 5), torch.zeros(6), torch.zeros(2, 3, 6)], ids=["width", "1-D", "3-D"]
)
def test_a_training_sample_of_another_shape_is_refused(sample: Tensor) -> None:
    with pytest.raises(LightsaeError, match=r"sample has shape .* expects \[rows, d_in = 6\]"):
        SparseAutoencoder(6, 50, TopK(3)).initialize_(sample)


@pytest.mark.parametrize(
    ("sample", "dtype"),
    [
        (1e6 * batch(), torch.float16),
        (batch() + 1e6, torch.float16),
        (1e-60 * batch(), torch.float32),
        (1e60 * batch(), torch.float32),
    ],
    ids=["scale-overflows", "centre-overflows", "scale-vanishes", "scale-overflows-fp32"],
)
def test_a_sample_that_the_dtype_cannot_hold_is_refused_and_nothing_changes(
    sample: Tensor, dtype: torch.dtype
) -> None:
    sae = SparseAutoencoder(6, 50, TopK(3)).to(dtype)
    with pytest.raises(LightsaeError, match=f"does not fit into {dtype}: scale"):
        sae.initialize_(sample)
    assert sae.scale == 1 and not sae.b_dec.any()


@pytest.mark.parametrize(("d_in", "d_sae", "name"), [(0, 4, "d_in"), (4, 0, "d_sae")])
def test_sizes_are_at_least_1(d_in: int, d_sae: int, name: str) -> None:
    with pytest.raises(LightsaeError, match=f"{name} must be at least 1, got 0"):
        SparseAutoencoder(d_in, d_sae, TopK(1))


def test_k_is_at_most_d_sae() -> None:
    assert SparseAutoencoder(4, 9, TopK(9)).selection.k == 9
    with pytest.raises(LightsaeError, match="k = 10 is larger than d_sae = 9"):
        SparseAutoencoder(4, 9, TopK(10))


@pytest.mark.parametrize("k", [1, 2, 7, 50])
def test_encodes_at_another_k(k: int) -> None:
    sae, x = untied(6, 50, 3), batch()
    code = sae.encode(x, k=k)
    assert code.values.shape == (20, k)
    assert torch.equal(code.indices[:, :3], sae.encode(x).indices[:, :k])
    assert sae.decode(code).shape == x.shape
    assert sae.selection.k == 3


@pytest.mark.parametrize("k", [0, 51])
def test_another_k_must_fit(k: int) -> None:
    with pytest.raises(ValueError, match="k must be an integer between 1 and d_sae = 50"):
        untied(6, 50, 3).encode(batch(), k=k)


def test_forward_is_decode_of_encode() -> None:
    sae, x = untied(6, 50, 3), batch()
    sae.scale.fill_(4)
    assert torch.equal(sae(x), sae.decode(sae.encode(x)))


def test_pre_activations_are_what_selection_ranks() -> None:
    sae, x = untied(6, 50, 50), batch()
    sae.scale.fill_(4)
    torch.testing.assert_close(sae.pre_activations(x).relu(), sae.encode(x).to_dense())


def test_the_projected_decoder_gradient_is_orthogonal_to_every_row() -> None:
    sae = untied(6, 50, 3)
    objective(sae, batch()).loss.backward()
    assert sae.W_dec.grad is not None
    before, rows = sae.W_dec.grad.clone(), sae.W_dec.detach()
    sae.project_decoder_gradient_()
    dots = torch.linalg.vecdot(sae.W_dec.grad, rows)
    assert dots.abs().max() < 1e-12 < torch.linalg.vecdot(before, rows).abs().max()
    removed = before - sae.W_dec.grad
    along = torch.linalg.vecdot(removed, rows) / row_norms(sae)
    torch.testing.assert_close(along.abs(), torch.linalg.vector_norm(removed, dim=1))


def test_projecting_twice_or_without_a_gradient_changes_nothing() -> None:
    sae = untied(6, 50, 3)
    sae.project_decoder_gradient_()
    assert sae.W_dec.grad is None
    objective(sae, batch()).loss.backward()
    sae.project_decoder_gradient_()
    assert sae.W_dec.grad is not None
    once = sae.W_dec.grad.clone()
    sae.project_decoder_gradient_()
    torch.testing.assert_close(sae.W_dec.grad, once)


def test_a_row_of_zeros_keeps_its_gradient_and_stays_finite() -> None:
    sae = untied(6, 50, 3)
    sae.W_dec.data[7] = 0
    sae.W_dec.grad = torch.ones_like(sae.W_dec)
    sae.project_decoder_gradient_()
    sae.normalize_decoder_()
    assert torch.equal(sae.W_dec.grad[7], torch.ones(6).double())
    assert not sae.W_dec[7].any()
    assert torch.isfinite(sae.W_dec).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1e-2, 1.0, 1e2])
def test_decoder_rows_are_brought_back_to_unit_norm(dtype: torch.dtype, size: float) -> None:
    sae = untied(6, 50, 3).to(dtype)
    sae.W_dec.data *= size
    direction = torch.nn.functional.normalize(sae.W_dec.detach().double(), dim=1)
    sae.normalize_decoder_()
    tolerance = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(row_norms(sae), torch.ones(50).double(), rtol=0, atol=tolerance)
    torch.testing.assert_close(sae.W_dec.detach().double(), direction, rtol=0, atol=tolerance)


def test_unit_norm_is_kept_by_training_and_the_loss_falls() -> None:
    torch.manual_seed(0)
    sae, x = SparseAutoencoder(6, 24, TopK(3)).double(), batch(200)
    sae.initialize_(x)
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = objective(sae, x / sae.scale).loss
        loss.backward()
        sae.project_decoder_gradient_()
        optimizer.step()
        sae.normalize_decoder_()
        losses.append(loss.item())
        torch.testing.assert_close(row_norms(sae), torch.ones(24).double())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("rows", "d_in", "d_sae", "k"),
    [(5, 3, 1, 1), (1, 3, 8, 2), (5, 1, 8, 8), (1, 1, 1, 1), (0, 3, 8, 2)],
    ids=["one-latent", "one-row", "one-dimension", "one-of-everything", "no-rows"],
)
def test_the_smallest_sizes_work(rows: int, d_in: int, d_sae: int, k: int) -> None:
    sae, x = untied(d_in, d_sae, k), batch(rows, d_in)
    code = sae.encode(x)
    assert code.values.shape == code.indices.shape == (rows, k)
    assert sae(x).shape == x.shape
    objective(sae, x).loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in sae.parameters())


def test_tokens_have_to_be_flattened_first() -> None:
    with pytest.raises(ArgumentError, match=r"x must be \[B, d_in = 6\] \(flatten tokens first\)"):
        untied(6, 50, 3).encode(batch().view(4, 5, 6))


def test_a_single_vector_or_another_width_is_refused() -> None:
    sae = untied(6, 50, 3)
    for x in (batch()[0], batch()[:, :5]):
        with pytest.raises(ArgumentError, match=r"x must be \[B, d_in = 6\]"):
            sae.encode(x)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_input_that_is_not_finite_is_refused_with_its_place(value: float) -> None:
    x = batch()
    x[3, 4] = value
    with pytest.raises(ArgumentError, match=r"x has 1 NaN or infinite values.*\(3, 4\)"):
        untied(6, 50, 3)(x)


@pytest.mark.parametrize("of_x", DTYPES, ids=str)
@pytest.mark.parametrize("of_sae", DTYPES, ids=str)
def test_the_dtype_of_the_input_is_that_of_the_parameters(
    of_x: torch.dtype, of_sae: torch.dtype
) -> None:
    sae, x = untied(6, 50, 3).to(of_sae), batch().to(of_x)
    if of_x == of_sae:
        assert sae.encode(x).values.dtype == sae(x).dtype == of_sae
        assert sae.scale.dtype == of_sae
    else:
        with pytest.raises(ArgumentError, match=f"x is {of_x} but W_enc is {of_sae}"):
            sae.encode(x)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_narrow_modules_are_close_to_wide_ones(dtype: torch.dtype) -> None:
    narrow = untied(6, 50, 50).to(dtype)
    wide, x = copy.deepcopy(narrow).double(), batch().to(dtype)
    error = (narrow(x).double() - wide(x.double())).norm() / wide(x.double()).norm()
    assert error < 8 * torch.finfo(dtype).eps


def test_an_overflow_in_float16_is_refused_and_not_carried_on() -> None:
    sae = untied(6, 50, 3).half()
    sae.W_enc.data.fill_(3e4)
    with pytest.raises(ArgumentError, match="overflow float16"):
        sae.encode(torch.full((2, 6), 10.0, dtype=torch.float16))


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e6, 1e15])
def test_inputs_of_any_ordinary_size_are_scaled_to_the_same_code(size: float) -> None:
    sae = untied(6, 50, 3).float()
    expected = sae.encode(batch().float())
    sae.scale.fill_(size)
    found = sae.encode((batch() * size).float())
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-5)


def test_the_state_makes_the_round_trip() -> None:
    sae, twin = untied(6, 50, 3), untied(6, 50, 3, seed=5)
    sae.scale.fill_(4)
    assert not torch.equal(sae(batch()), twin(batch()))
    twin.load_state_dict(sae.state_dict())
    assert torch.equal(sae(batch()), twin(batch()))


def test_a_deep_copy_shares_nothing() -> None:
    sae = untied(6, 50, 3)
    twin, before = copy.deepcopy(sae), sae(batch()).detach()
    assert torch.equal(twin(batch()), before)
    for tensor in twin.state_dict().values():
        tensor.zero_()
    assert torch.equal(sae(batch()), before)


@pytest.mark.parametrize("regularizer", [None, OffSupportL1(0.1), L1L2Ratio(0.1)])
def test_two_graphs_can_wait_for_their_backward_passes(regularizer: Regularizer | None) -> None:
    """Scratch memory is not shared between them."""
    sae, batches = untied(6, 50, 3), (batch(), -batch())

    def loss(x: Tensor) -> Tensor:
        return objective(sae, x, regularizer=regularizer).loss

    alone = [torch.autograd.grad(loss(x), sae.W_enc)[0] for x in batches]
    waiting = [loss(x) for x in batches]
    for graph, expected in zip(waiting, alone, strict=True):
        assert torch.equal(torch.autograd.grad(graph, sae.W_enc)[0], expected)


@pytest.mark.parametrize(
    "given", [torch.zeros(2, 3).numpy(), [[0.0] * 3] * 2, None], ids=["array", "list", "nothing"]
)
def test_what_is_no_tensor_is_told_what_is_wanted(given: Any) -> None:
    sae = SparseAutoencoder(3, 8, TopK(2))
    for call in (sae.encode, sae):
        with pytest.raises(LightsaeError, match=r"x is a \w+, expected a tensor \[B, d_in = 3\]"):
            call(given)
    with pytest.raises(LightsaeError, match=r"code is a \w+, expected a SparseCode, as encode"):
        sae.decode(given)


def test_a_dense_code_is_none() -> None:
    sae = SparseAutoencoder(3, 8, TopK(2))
    with pytest.raises(LightsaeError, match="code is a Tensor, expected a SparseCode, as"):
        sae.decode(sae.encode(torch.randn(4, 3)).to_dense())


def test_a_code_of_another_dictionary_is_refused() -> None:
    code = SparseAutoencoder(3, 8, TopK(2)).encode(torch.randn(4, 3))
    with pytest.raises(LightsaeError, match="the code has d_sae = 8, the autoencoder d_sae = 9"):
        SparseAutoencoder(3, 9, TopK(2)).decode(code)
