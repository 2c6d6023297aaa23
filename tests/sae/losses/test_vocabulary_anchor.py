"""How near latents are to a vocabulary is its definition, in value and gradient, in blocks."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import Transcoder, VocabularyAnchor, objective, vocabulary_anchor
from lightsae.sae.losses.anchor_function import Reduction
from lightsae.sae.losses.vocabulary_file import read_directions

from ..helpers import assert_close, untied

REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
# Latents, vectors, width, block.
SHAPES = [(7, 11, 5, 3), (1, 1, 1, 1), (9, 4, 6, 100), (5, 8, 3, 4), (4, 30, 2, 7)]
IDS = ["N{}-V{}-D{}-C{}".format(*shape) for shape in SHAPES]


def drawn(rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, dtype=torch.float64, generator=generator)


def dense(W: Tensor, vectors: Tensor, reduction: Reduction, T: float) -> Tensor:
    """Latent by latent, from the cosines with every vector."""
    found = []
    for row in W:
        cosines = torch.stack([row @ e / (row.norm() * e.norm()) for e in vectors])
        if reduction == "max":
            found.append(cosines.max())
        elif reduction == "logsumexp":
            found.append(T * (cosines / T).exp().mean().log())
        else:
            found.append((torch.softmax(cosines / T, dim=0) * cosines).sum())
    return torch.stack(found).mean()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_value_and_gradient_are_those_of_the_definition(
    shape: tuple[int, int, int, int], reduction: Reduction
) -> None:
    N, V, D, chunk = shape
    vectors = 3 * drawn(V, D, 1)
    W = drawn(N, D, 0).requires_grad_()
    value = vocabulary_anchor(W, vectors, reduction, 0.2, chunk)
    (-0.7 * value).backward()
    other = W.detach().clone().requires_grad_()
    expected = dense(other, vectors, reduction, 0.2)
    (-0.7 * expected).backward()
    assert W.grad is not None and other.grad is not None
    assert_close("value", value.detach(), expected.detach(), 1e-12)
    assert_close("dW_dec", W.grad, other.grad, 1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck(reduction: Reduction) -> None:
    W, vectors = drawn(6, 4, 0).requires_grad_(), drawn(9, 4, 1)
    assert torch.autograd.gradcheck(lambda w: vocabulary_anchor(w, vectors, reduction, 0.3, 4), W)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_the_first_of_equals_has_the_gradient(chunk: int) -> None:
    vectors = torch.tensor([[-1.0, 0.0], [0.0, 2.0], [4.0, 0.0]], dtype=torch.float64)
    W = torch.tensor([[1.0, 1.0], [-3.0, 3.0]], dtype=torch.float64, requires_grad=True)
    vocabulary_anchor(W, vectors, chunk=chunk).backward()
    # Both are as near to vector 1 as to another one: the first is turned to it, the second to 0.
    assert W.grad is not None
    towards = W.grad @ vectors.T
    assert towards[0, 1] > 0 > towards[0, 2]
    assert towards[1, 0] > 0 > towards[1, 1]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_latent_without_a_direction_counts_0(reduction: Reduction, dtype: torch.dtype) -> None:
    W, vectors = drawn(5, 3, 0).to(dtype), drawn(4, 3, 1)
    W[2] = 0
    W.requires_grad_()
    value = vocabulary_anchor(W, vectors, reduction, chunk=2)
    value.backward()
    kept = W.detach()[[0, 1, 3, 4]].double()
    assert_close("value", value, 0.8 * dense(kept, vectors, reduction, 0.05), 1e-6)
    assert W.grad is not None and W.grad.isfinite().all()
    assert not W.grad[2].any() and W.grad[[0, 1, 3, 4]].any(dim=1).all()


def test_an_empty_dictionary_counts_0() -> None:
    assert vocabulary_anchor(torch.zeros(0, 3), torch.eye(3)) == 0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_weight_that_is_not_finite_stays_in_sight(reduction: Reduction) -> None:
    W = drawn(4, 3, 0)
    W[1, 1] = torch.nan
    assert vocabulary_anchor(W, drawn(5, 3, 1), reduction, chunk=2).isnan()


@pytest.mark.parametrize("reduction", ["logsumexp", "softmax"])
def test_soft_reductions_are_below_the_max_and_come_to_it(reduction: Reduction) -> None:
    W, vectors = drawn(7, 5, 0), drawn(11, 5, 1)
    largest = vocabulary_anchor(W, vectors)
    soft = [vocabulary_anchor(W, vectors, reduction, T) for T in (1.0, 0.1, 1e-3, 1e-5)]
    assert soft == sorted(soft) and soft[-1] <= largest
    assert_close("limit", soft[-1], largest, 1e-4)
    twice = vocabulary_anchor(W, vectors.repeat(2, 1), reduction, 0.1)
    assert_close("each vector twice", twice, soft[1], 1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_neither_scale_of_latents_nor_of_vectors_matters(reduction: Reduction) -> None:
    W, vectors = drawn(7, 5, 0), drawn(11, 5, 1)
    sizes = torch.logspace(-4, 4, 11, dtype=torch.float64)[:, None]
    scaled = vocabulary_anchor(1e3 * W, vectors * sizes, reduction)
    assert_close("value", scaled, vocabulary_anchor(W, vectors, reduction), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_norms_whose_squares_leave_the_range_of_floats_are_no_matter(
    size: float, dtype: torch.dtype
) -> None:
    W, vectors = drawn(7, 5, 0), drawn(11, 5, 1).to(dtype).double()
    expected = vocabulary_anchor(W, vectors)
    scaled = (vectors * size).to(dtype)
    rounding = 1e-6 if dtype == torch.float32 else 1e-2
    assert_close("vectors", vocabulary_anchor(W.float(), scaled).double(), expected, rounding)
    held = VocabularyAnchor(0.1, scaled).nearness(W.float()).value
    assert_close("anchor", held.double(), expected, rounding)
    tiny = (W * size).float().requires_grad_()
    value = vocabulary_anchor(tiny, vectors)
    value.backward()
    leaf = W.clone().requires_grad_()
    vocabulary_anchor(leaf, vectors).backward()
    assert tiny.grad is not None and leaf.grad is not None
    assert_close("latents", value.detach().double(), expected, 1e-6)
    assert_close("dW_dec", tiny.grad.double() * size, leaf.grad, 1e-6)


def test_float64_latents_and_float32_vectors_are_compared_in_float64() -> None:
    W, vectors = drawn(7, 5, 0), drawn(11, 5, 1).float()
    expected = dense(W, vectors.double(), "max", 1)
    assert_close("value", vocabulary_anchor(W, vectors), expected, 1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_its_gradient_is_tangent_to_the_latents(reduction: Reduction) -> None:
    W = drawn(7, 5, 0).requires_grad_()
    vocabulary_anchor(W, drawn(11, 5, 1), reduction).backward()
    assert W.grad is not None
    assert (W.grad * W).sum(dim=1).abs().max() < 1e-15


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_under_autocast_and_of_narrow_tensors_cosines_are_float32(
    narrow: torch.dtype, reduction: Reduction
) -> None:
    W, vectors = drawn(64, 32, 0), drawn(50, 32, 1).to(narrow)
    expected = W.clone().requires_grad_()
    dense(expected, vectors.double(), reduction, 0.05).backward()
    found = W.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = vocabulary_anchor(found, vectors, reduction, chunk=16)
        value.backward()
    assert value.dtype == torch.float32
    assert found.grad is not None and expected.grad is not None
    assert_close("dW_dec", found.grad, expected.grad, 2e-5)
    of_narrow = W.to(narrow).requires_grad_()
    vocabulary_anchor(of_narrow, vectors, reduction).backward()
    assert of_narrow.grad is not None and of_narrow.grad.dtype == narrow


def test_no_block_is_larger_than_the_chunk_squared() -> None:
    W, vectors, largest = torch.randn(300, 4, requires_grad=True), torch.randn(400, 4), []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            leaves = torch.utils._pytree.tree_leaves(out)
            largest.extend(t.numel() for t in leaves if isinstance(t, Tensor))
            return out

    for reduction in REDUCTIONS:
        with Sizes():
            vocabulary_anchor(W, vectors, reduction, chunk=50).backward()
    assert max(largest) <= max(50 * 50, vectors.numel())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": torch.eye(3)}, "vocabulary: its vectors have width 3, decoder rows have 2"),
        ({"vectors": torch.ones(2, 2).index_fill(0, torch.tensor(1), 0.0)}, "row 1 of vocabulary "
         "is zero, expected a direction"),
        ({"vectors": torch.tensor([[1, torch.inf]])}, "row 0 of vocabulary is not finite"),
        ({"vectors": torch.tensor([[torch.nan, 1]])}, "row 0 of vocabulary is not finite"),
        ({"vectors": torch.ones(2)}, r"vocabulary is torch.float32 of shape \[2\], expected"),
        ({"vectors": torch.ones(2, 2).int()}, "vocabulary is torch.int32 .*, expected floats"),
        ({"vectors": torch.ones(0, 2)}, r"shape \[0, 2\], expected floats \[V, d\]"),
        ({"reduction": "mean"}, "reduction is 'mean', expected one of"),
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_what_is_no_vocabulary_or_setting_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        vocabulary_anchor(torch.ones(1, 2), **{"vectors": torch.eye(2), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": -1.0}, "weight must be at least 0 and finite"),
        ({"every": 0}, "every must be at least 1 step, got 0"),
        ({"weight_warmup": -1}, "weight_warmup must be at least 0 steps"),
        ({"reduction": "min"}, "reduction is 'min'"),
        ({"temperature": torch.inf}, "temperature must be positive"),
        ({"vocabulary": torch.zeros(1, 2)}, "row 0 of vocabulary is zero"),
    ],
)
def test_settings_of_an_anchor_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        VocabularyAnchor(**{"weight": 0.1, "vocabulary": torch.eye(2), **change})


def test_it_counts_every_fold_where_it_is_computed_and_warms_up() -> None:
    anchor = VocabularyAnchor(0.6, torch.eye(2), every=2, weight_warmup=6)
    weights = [anchor.weight_of_step(step) for step in range(10)]
    assert weights[::2] == [None] * 5
    assert weights[1::2] == pytest.approx([0.2, 0.6, 1.0, 1.2, 1.2])


def test_the_loss_is_less_by_lambda_times_how_near_latents_are() -> None:
    sae, x, vectors = untied(5, 12, 3), drawn(7, 5, 2), drawn(9, 5, 3)
    anchor = VocabularyAnchor(0.4, vectors, reduction="softmax", temperature=0.2)
    plain = objective(sae, x)
    (of_plain,) = torch.autograd.grad(plain.loss, sae.W_dec)
    parts = objective(sae, x, anchor=anchor)
    parts.loss.backward()
    leaf = sae.W_dec.detach().clone().requires_grad_()
    value = dense(leaf, vectors, "softmax", 0.2)
    (of_anchor,) = torch.autograd.grad(value, leaf)
    assert parts.anchor is not None and parts.nearest_cosine is not None
    assert_close("anchor", parts.anchor.detach(), value.detach(), 1e-12)
    assert_close("nearest", parts.nearest_cosine, dense(leaf, vectors, "max", 1).detach(), 1e-12)
    assert_close("loss", parts.loss.detach(), (plain.loss - 0.4 * value).detach(), 1e-12)
    assert_close("dW_dec", sae.W_dec.grad, of_plain - 0.4 * of_anchor, 1e-12)
    assert not parts.nearest_cosine.requires_grad
    heavier = objective(sae, x, anchor=anchor, anchor_weight=2.0)
    assert_close("weight", heavier.loss.detach(), (plain.loss - 2 * value).detach(), 1e-12)
    share = parts.weighted(0.5)
    assert share.loss == 0.5 * parts.loss and share.anchor == parts.anchor
    assert plain.anchor is plain.nearest_cosine is plain.weighted(0.5).anchor is None


def test_of_a_transcoder_vectors_are_as_wide_as_its_targets() -> None:
    sae = Transcoder(5, 12, untied(5, 12, 3).selection, d_out=4).double()
    x, targets = drawn(7, 5, 2), drawn(7, 4, 3)
    anchor = VocabularyAnchor(0.4, drawn(9, 4, 4))
    assert objective(sae, x, targets, anchor=anchor).anchor is not None
    with pytest.raises(LightsaeError, match="vectors have width 5, decoder rows have 4"):
        objective(sae, x, targets, anchor=VocabularyAnchor(0.4, drawn(9, 5, 4)))


def test_a_file_is_read_once_when_it_is_first_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    one, other = (VocabularyAnchor(0.1, path) for _ in range(2))
    assert one.digest is None
    save_file({"vectors": torch.eye(3, dtype=torch.bfloat16)}, path)
    assert one.vectors.equal(torch.eye(3)) and one.vectors.dtype == torch.bfloat16
    assert other.vectors is one.vectors
    assert one.digest == other.digest == VocabularyAnchor(0.1, one.vectors).digest
    assert one.digest != VocabularyAnchor(0.1, one.vectors.flip(0)).digest
    assert one.digest != VocabularyAnchor(0.1, one.vectors.float()).digest
    save_file({"vectors": torch.ones(1, 3)}, path)
    assert VocabularyAnchor(0.1, path).vectors.shape == (1, 3)


def test_directions_are_made_once_for_a_dtype_and_are_those_that_were_given(
    tmp_path: Path,
) -> None:
    embeddings, W = drawn(9, 5, 0).float(), drawn(7, 5, 1).float()
    anchor = VocabularyAnchor(0.1, embeddings)
    before, digest = anchor.nearness(W).value, anchor.digest
    embeddings.neg_()
    assert anchor.nearness(W).value == before and anchor.digest == digest
    save_file({"vectors": embeddings}, tmp_path / "words.safetensors")
    found = read_directions(tmp_path / "words.safetensors")
    assert found.unit_like(W) is found.unit_like(W)
    assert found.unit_like(W.bfloat16()) is found.unit_like(W)
    assert found.unit_like(W.double()).dtype == torch.float64
    assert read_directions(tmp_path / "words.safetensors") is found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such vocabulary, expected a safetensors file with 'vectors'"),
        (b"no tensors at all", "words.safetensors is not a safetensors file"),
        ({"names": torch.eye(2)}, r"holds \['names'\], expected 'vectors' \[V, d\]"),
        ({"vectors": torch.zeros(2, 2)}, "row 0 of 'vectors' of .*words.safetensors is zero"),
        ({"vectors": torch.eye(2).to(torch.float8_e4m3fn)}, "expected floats"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(
    content: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "words.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_file(content, path)
    with pytest.raises(LightsaeError, match=message):
        VocabularyAnchor(0.1, str(path)).require_width(2)
