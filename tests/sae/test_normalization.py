"""What is done to inputs before they are encoded, and undone after: each kind by its formula."""

import json
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import (
    Normalization,
    SparseAutoencoder,
    SparseCode,
    TopK,
    input_statistics,
    objective,
    save_load,
)

D_IN, D_SAE, K = 6, 16, 3
KINDS: tuple[Normalization, ...] = get_args(Normalization)
BY_ROW: tuple[Normalization, ...] = ("layer_norm", "layer_norm_unbiased", "unit_norm")


def rows(count: int = 50) -> Tensor:
    """Rows of other sizes around a mean that is not zero."""
    generator = torch.Generator().manual_seed(0)
    size = 1 + 9 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    return size * (2 + torch.randn(count, D_IN, generator=generator, dtype=torch.float64))


def autoencoder(kind: Normalization, sample: Tensor | None = None) -> SparseAutoencoder:
    torch.manual_seed(1)
    sae = SparseAutoencoder(D_IN, D_SAE, TopK(K), kind).double()
    sae.initialize_(rows() if sample is None else sample)
    return sae


def by_hand(kind: Normalization, x: Tensor, sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shift and factor of x, and the centre that b_dec starts as; without EPSILON."""
    mean = sample.sum(dim=0) / len(sample)
    one, none = torch.ones(len(x), 1).double(), torch.zeros(len(x), 1).double()
    if kind == "variance":
        return none, one * ((sample - mean) ** 2).sum().div(len(sample)).sqrt(), mean
    if kind == "none":
        return none, one, torch.zeros_like(mean)
    if kind == "centre":
        return none, one, mean
    if kind == "centre_scale":
        norms = ((sample - mean) ** 2).sum(dim=1).sqrt()
        return none, one * norms.sum() / len(sample) / math.sqrt(D_IN), mean
    normalized = []
    for part in (x, sample):
        shift = torch.zeros(len(part), 1).double()
        factor = (part**2).sum(dim=1, keepdim=True).sqrt()
        if kind == "layer_norm":
            shift = part.sum(dim=1, keepdim=True) / D_IN
            factor = (((part - shift) ** 2).sum(dim=1, keepdim=True) / D_IN).sqrt()
        if kind == "layer_norm_unbiased":
            shift = part.sum(dim=1, keepdim=True) / D_IN
            factor = (((part - shift) ** 2).sum(dim=1, keepdim=True) / (D_IN - 1)).sqrt()
        normalized.append((shift, factor, (part - shift) / (factor + added(kind))))
    return *normalized[0][:2], normalized[1][2].sum(dim=0) / len(sample)


def added(kind: Normalization) -> float:
    """What is added to the factor where rows are divided by it, but not where this is undone."""
    return 1e-5 if kind == "layer_norm_unbiased" else 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_its_formula(kind: Normalization) -> None:
    sample, x = rows(), 3 * rows(7) - 1
    sae = autoencoder(kind)
    shift, factor, centre = by_hand(kind, x, sample)
    divided_by = factor[0] if kind not in BY_ROW else 1.0
    torch.testing.assert_close(sae.b_dec.data, centre / divided_by)
    z = (x - shift) / (factor + added(kind))
    torch.testing.assert_close(sae.normalize(x).x, z)
    a = ((z - sae.b_dec) @ sae.W_enc.T + sae.b_enc).relu()
    torch.testing.assert_close(sae.pre_activations(x).relu(), a)
    values, indices = a.topk(K)
    code = sae.encode(x)
    torch.testing.assert_close(code.values, values)
    sums = torch.zeros(len(x), D_IN).double()
    for i in range(len(x)):
        for value, latent in zip(values[i], indices[i], strict=True):
            sums[i] += value * sae.W_dec[latent]
    x_hat = shift + factor * (sums + sae.b_dec)
    torch.testing.assert_close(sae.decode(code), x_hat)
    torch.testing.assert_close(sae(x), x_hat)


def test_what_each_kind_promises() -> None:
    x = rows()
    normalized = {kind: autoencoder(kind).normalize(x).x for kind in KINDS}
    centred = {kind: normalized[kind] - autoencoder(kind).b_dec for kind in KINDS}
    assert torch.equal(normalized["none"], x)
    assert not autoencoder("none").b_dec.any()
    assert torch.equal(normalized["centre"], x)
    for kind in ("variance", "centre", "centre_scale"):
        torch.testing.assert_close(centred[kind].mean(dim=0), torch.zeros(D_IN).double())
    assert centred["variance"].square().sum(dim=1).mean().item() == pytest.approx(1)
    assert centred["centre_scale"].norm(dim=1).mean().item() == pytest.approx(math.sqrt(D_IN))
    of_rows = normalized["layer_norm"]
    torch.testing.assert_close(of_rows.mean(dim=1), torch.zeros(len(x)).double())
    torch.testing.assert_close(of_rows.std(dim=1, correction=0), torch.ones(len(x)).double())
    torch.testing.assert_close(normalized["unit_norm"].norm(dim=1), torch.ones(len(x)).double())


def test_the_centre_of_centre_scale_can_be_the_geometric_median() -> None:
    x = rows()
    scale, centre = input_statistics(x, "geometric_median", "centre_scale")
    torch.testing.assert_close(centre, input_statistics(x, "geometric_median").centre)
    assert ((x - centre) / scale).norm(dim=1).mean().item() == pytest.approx(math.sqrt(D_IN))


@pytest.mark.parametrize("kind", KINDS)
def test_the_residual_of_training_is_that_of_raw_rows(kind: Normalization) -> None:
    sae, x = autoencoder(kind), rows(9)
    parts = objective(sae, sae.normalize(x).x)
    torch.testing.assert_close(sae.residual_in_units_of(x, parts.residual), x - sae(x))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_raw_errors_in_units_of_the_factor(kind: Normalization) -> None:
    sae, x = autoencoder(kind), rows(9)
    factor = by_hand(kind, x, rows())[1]
    objective(sae, sae.normalize(x).x).loss.backward()
    found = {name: p.grad.clone() for name, p in sae.named_parameters() if p.grad is not None}
    sae.zero_grad()
    ((x - sae(x)) / factor).square().sum(dim=1).mean().backward()
    assert found.keys() == {"W_enc", "b_enc", "W_dec", "b_dec"}
    # Errors of raw rows have also what is lost by adding to the factor and not undoing it.
    tolerance = 30 * added(kind) or 1e-7
    for name, parameter in sae.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=tolerance, atol=tolerance)


def test_a_row_s_own_size_and_offset_go_through() -> None:
    x = rows(9)
    for kind, offset in (("layer_norm", 7.0), ("unit_norm", 0.0)):
        sae = autoencoder(kind)  # type: ignore[arg-type]
        code, other = sae.encode(x), sae.encode(100 * x + offset)
        assert torch.equal(code.indices, other.indices)
        torch.testing.assert_close(code.values, other.values)
        torch.testing.assert_close(sae.decode(other), 100 * sae.decode(code) + offset)


@pytest.mark.parametrize("kind", BY_ROW)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e15])
def test_a_row_without_spread_is_finite(kind: Normalization, value: float) -> None:
    sae = autoencoder(kind).float()
    x = torch.full((2, D_IN), value)
    assert torch.isfinite(sae.normalize(x).x).all()
    assert torch.isfinite(sae(x)).all()
    if value == 0 or kind == "layer_norm":
        assert sae.normalize(x).x.abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_the_dtype_stays(kind: Normalization, dtype: torch.dtype) -> None:
    sae = autoencoder(kind).to(dtype)
    x = rows(4).to(dtype)
    assert sae.normalize(x).x.dtype == sae(x).dtype == dtype
    if kind in BY_ROW:
        kept = sae.encode(x).statistics
        assert kept is not None
        assert kept.dtype == torch.promote_types(dtype, torch.float32)


def test_half_precision_rows_have_statistics_that_they_could_not_hold() -> None:
    x = torch.full((1, D_IN), 60_000.0, dtype=torch.float16)
    sae = autoencoder("unit_norm").half()
    torch.testing.assert_close(
        sae.normalize(x).x, torch.full((1, D_IN), D_IN**-0.5, dtype=torch.float16)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_with_the_autoencoder(kind: Normalization, tmp_path: Path) -> None:
    sae, x = autoencoder(kind), rows(9)
    sae.save(tmp_path)
    assert json.loads((tmp_path / "sae.json").read_text())["normalization"] == {
        "kind": kind,
        "divide_by": sae.scale.item(),
        "subtract": "b_dec",
    }
    loaded = SparseAutoencoder.load(tmp_path)
    assert loaded.normalization == kind
    assert torch.equal(loaded(x), sae(x))


def rewrite(folder: Path, normalization: object) -> None:
    sae = autoencoder("variance")
    settings = {
        "d_in": D_IN, "d_sae": D_SAE, "dtype": "float64",
        "selection": {"rule": "TopK", "k": K}, "normalization": normalization,
    }  # fmt: skip
    save_load.write(folder, dict(sae.state_dict()), settings)


def test_a_file_that_is_older_than_the_choice_is_read(tmp_path: Path) -> None:
    rewrite(tmp_path, {"divide_by": 1.0, "subtract": "b_dec"})
    loaded, x = SparseAutoencoder.load(tmp_path), rows(9)
    assert loaded.normalization == "variance"
    assert torch.equal(loaded(x), autoencoder("variance")(x))


@pytest.mark.parametrize(
    ("normalization", "says"),
    [
        ({"kind": "batch_norm"}, "normalization is 'batch_norm', expected one of variance, none"),
        ({"kind": 3}, "normalization is 3, expected one of variance, none"),
        (None, "key 'normalization' is missing or not of type dict"),
    ],
)
def test_a_file_with_another_kind_is_refused(
    normalization: object, says: str, tmp_path: Path
) -> None:
    rewrite(tmp_path, normalization)
    with pytest.raises(LightsaeError, match=f"sae.json: {says}"):
        SparseAutoencoder.load(tmp_path)


@pytest.mark.parametrize("kind", BY_ROW)
def test_a_code_without_statistics_cannot_be_decoded(kind: Normalization) -> None:
    sae = autoencoder(kind)
    code = sae.encode(rows(4))
    bare = SparseCode(code.values, code.indices, code.d_sae)
    with pytest.raises(LightsaeError, match=f"no row statistics, {kind} cannot be undone"):
        sae.decode(bare)


def test_a_code_keeps_its_statistics_wherever_it_goes() -> None:
    sae = autoencoder("layer_norm")
    code = sae.encode(rows(4).requires_grad_())
    for other in (code.to("cpu"), code.detach()):
        assert torch.equal(sae.decode(other), sae.decode(code))
    assert code.detach().statistics.requires_grad is False
    assert autoencoder("variance").encode(rows(4)).statistics is None


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_exported(kind: Normalization) -> None:
    sae, x = autoencoder(kind).float(), rows(9).float()
    rows_of_any_number = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(sae, (x,), dynamic_shapes=rows_of_any_number)
    other = rows(5).float()
    torch.testing.assert_close(program.module()(other), sae(other))


def test_a_sample_that_is_one_direction_leaves_unit_norm_nothing_to_learn() -> None:
    with pytest.raises(LightsaeError, match="all 3 rows of the training sample are equal"):
        autoencoder("unit_norm", torch.tensor([[1.0, 0], [2, 0], [4, 0]]).repeat(1, 3).double())
