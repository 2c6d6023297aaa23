"""Both weight gradients from pairs sorted by latent; long segments are cut and added in order."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from .conftest import DTYPES

weight_gradients = pytest.importorskip("lightsae_kernels.fused.weight_gradients")
from lightsae_kernels.fused.latent_sort import latent_order  # noqa: E402
from lightsae_kernels.fused.weight_gradients import EncoderPairs  # noqa: E402
from lightsae_kernels.types import DecoderPairs  # noqa: E402

Close = Callable[..., None]
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-6, torch.bfloat16: 2e-6}


def indices_of(kind: str, B: int, N: int, K: int) -> Tensor:
    """Random latents; one on every sample; a few that share everything."""
    generator = torch.Generator().manual_seed(2)
    indices = torch.rand(B, N, generator=generator).argsort(dim=1)[:, :K]
    if kind == "hot":
        indices = torch.where(indices == 3, 0, indices)
        indices[:, 0] = 3
    return indices % 3 if kind == "few" else indices


def dense(indices: Tensor, coefficients: Tensor, rows: Tensor, N: int) -> Tensor:
    z = torch.zeros(len(indices), N, dtype=torch.float64, device=rows.device)
    return z.scatter_add(1, indices, coefficients.double()).t() @ rows.double()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", ["both", "encoder", "decoder", "accumulated"])
@pytest.mark.parametrize("kind", ["random", "hot", "few"])
@pytest.mark.parametrize("chunk", [4, 128])
def test_equals_the_dense_products(
    chunk: int, kind: str, parts: str, dtype: torch.dtype, device: torch.device,
    assert_close: Close,
) -> None:  # fmt: skip
    B, N, K, D = 33, 21, 5, 9
    generator = torch.Generator().manual_seed(4)
    indices = indices_of(kind, B, N, K).to(device)

    def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).to(device)

    d_z, z, x, g = draw(B, K), draw(B, K), draw(B, D, dtype=dtype), draw(B, D)
    accumulate = parts == "accumulated"
    d_W, d_b = (
        draw(*s) if accumulate else torch.full(s, float("nan"), device=device)
        for s in ((N, D), (N,))
    )
    before_W, before_b = d_W.clone().double(), d_b.clone().double()
    encoder = EncoderPairs(d_z, x, d_W, d_b, accumulate) if parts != "decoder" else None
    decoder = DecoderPairs(z, g) if parts in ("both", "decoder") else None
    d_W_dec = weight_gradients.weight_gradients(latent_order(indices, N, chunk), encoder, decoder)
    if encoder is not None:
        ones = torch.ones(B, 1, device=device)
        want_W, want_b = dense(indices, d_z, x, N), dense(indices, d_z, ones, N).squeeze(1)
        if accumulate:
            want_W, want_b = want_W + before_W, want_b + before_b
        assert_close("d_W_enc", d_W, want_W, TOLERANCE[dtype])
        assert_close("d_b_enc", d_b, want_b, TOLERANCE[dtype])
    if decoder is not None:
        assert_close("d_W_dec", d_W_dec, dense(indices, z, g, N), TOLERANCE[dtype])


@pytest.mark.parametrize(("B", "N", "K"), [(50, 7, 1), (50, 7, 4), (700, 300, 4), (0, 5, 2)])
def test_the_order_holds_every_pair_once(
    B: int, N: int, K: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several tiles of several blocks, as for the pairs of a large batch.
    monkeypatch.setattr("lightsae_kernels.fused.latent_sort._BLOCK", 64)
    monkeypatch.setattr("lightsae_kernels.fused.latent_sort._TILES", 4)
    indices = indices_of("hot", B, N, K).to(device) if B else torch.zeros(0, K, dtype=torch.int64)
    order = latent_order(indices.to(device), N, chunk=8)
    flat = indices.reshape(-1).cpu()
    latents = flat[order.pairs.long().cpu()]
    assert sorted(order.pairs.tolist()) == list(range(B * K))
    assert torch.equal(latents, latents.sort().values)
    for j, (begin, end) in enumerate(order.offsets.cpu().unfold(0, 2, 1).tolist()):
        assert latents[begin:end].tolist() == [j] * (end - begin)
        assert order.pairs[begin:end].diff().gt(0).all(), "samples ascend"
    counts = torch.bincount(flat, minlength=N)
    further = (counts + 7).div(8, rounding_mode="floor").clamp_min(1) - 1
    assert order.extras.diff().tolist() == further.tolist()
    assert int(order.extras[-1]) <= order.further


def test_wide_rows_are_split(device: torch.device, assert_close: Close) -> None:
    indices = torch.zeros(3, 1, dtype=torch.int64, device=device)
    rows = torch.randn(3, 1500, device=device)
    pairs = DecoderPairs(torch.ones(3, 1, device=device), rows)
    out = weight_gradients.decoder_gradient(latent_order(indices, 2, chunk=2), pairs)
    assert_close("d_W_dec", out, torch.stack([rows.sum(0), torch.zeros_like(rows[0])]), 1e-6)


def test_an_index_outside_the_dictionary_is_nobodys(device: torch.device) -> None:
    order = latent_order(torch.tensor([[65536, 1], [-1, 3]], device=device), 4)
    assert order.offsets.tolist() == [0, 0, 1, 1, 2]
    assert order.pairs[:2].tolist() == [1, 3]


def test_columns_of_a_program_stay_in_l2() -> None:
    assert weight_gradients.gradient_columns(384, 4096 * 4) == 512
    for B in (256, 4096, 16384, 65536):
        block = weight_gradients.gradient_columns(1024, B * 4)
        assert block == 256 or B * 4 * block <= 16 << 20
