"""The penalty is 1 - mean monosemanticity of the batch, in value and in every gradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed import destroy_process_group, group, init_process_group

from lightsae.errors import LightsaeError
from lightsae.sae import CodeRegularizer, MonosemanticityLoss, OffSupportL1, objective

from ..helpers import assert_close, untied

SHAPES = [(23, 6, 40, 4, 3), (60, 5, 9, 3, 7), (2, 5, 9, 2, 1), (6, 3, 7, 7, 2), (9, 4, 1, 1, 4)]
IDS = ["B{}-D{}-N{}-K{}-E{}".format(*shape) for shape in SHAPES]


def batch(B: int, d: int, seed: int = 1) -> Tensor:
    return torch.randn(B, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense(z: Tensor, e: Tensor) -> Tensor:
    """1 - mean MS by every pair of samples, the maximum differentiated too."""
    unit = e / e.norm(dim=1, keepdim=True)
    cosine = unit @ unit.T
    scores = []
    for a in z.T:
        if (a > 0).sum() < 2:
            continue
        w = a / a.max()
        pairs = (w[:, None] * w[None, :]).triu(diagonal=1)
        scores.append((pairs * cosine).sum() / pairs.sum())
    return 1 - torch.stack(scores).mean() if scores else z.sum() * 0


def dense_code(leaves: dict[str, Tensor], x: Tensor, k: int) -> Tensor:
    a = torch.relu((x - leaves["b_dec"]) @ leaves["W_enc"].T + leaves["b_enc"])
    kept = a.detach().sort(dim=1, descending=True, stable=True).indices[:, :k]
    return a * torch.zeros_like(a).scatter(1, kept, 1.0)


@pytest.mark.parametrize("own", [True, False], ids=["own-input", "other-model"])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_value_and_gradients_are_those_of_the_double_loop(
    shape: tuple[int, int, int, int, int], own: bool
) -> None:
    B, d_in, d_sae, k, d_e = shape
    sae, x = untied(d_in, d_sae, k), batch(B, d_in)
    e = x if own else batch(B, d_e, seed=2)
    parts = objective(sae, x, regularizer=MonosemanticityLoss(0.7), embeddings=None if own else e)
    parts.loss.backward()

    leaves = {name: p.detach().clone().requires_grad_() for name, p in sae.named_parameters()}
    z = dense_code(leaves, x, k)
    penalty = dense(z, e)
    x_hat = z @ leaves["W_dec"] + leaves["b_dec"]
    loss = (x - x_hat).pow(2).sum(dim=1).mean() + 0.7 * penalty
    loss.backward()

    assert_close("penalty", parts.penalty.detach(), penalty.detach(), 1e-10)
    assert_close("loss", parts.loss.detach(), loss.detach(), 1e-10)
    for name, parameter in sae.named_parameters():
        expected = leaves[name].grad
        assert expected is not None
        assert_close(f"d{name}", parameter.grad, expected, 1e-10)


def test_the_penalty_has_a_gradient_at_all() -> None:
    sae, x = untied(6, 40, 4), batch(23, 6)
    penalty = objective(sae, x, regularizer=MonosemanticityLoss(1.0)).penalty
    (of_W_enc,) = torch.autograd.grad(penalty, sae.W_enc)
    assert 0 < penalty < 2
    assert of_W_enc.abs().max() > 1e-3


def penalty_of(values: Tensor, indices: Tensor, e: Tensor, d_sae: int) -> tuple[Tensor, Tensor]:
    values = values.clone().requires_grad_()
    penalty = MonosemanticityLoss(1.0).code_penalty(values, indices, d_sae, e)
    (grad,) = torch.autograd.grad(penalty, values, allow_unused=True)
    return penalty.detach(), torch.zeros_like(values) if grad is None else grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_latent_that_fires_once_does_not_count(dtype: torch.dtype) -> None:
    indices = torch.tensor([[0, 1], [0, 2], [3, 2]])
    values = torch.tensor([[2.0, 5.0], [1.0, 1.0], [7.0, 0.0]], dtype=dtype)
    e = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 1.0]], dtype=dtype)
    penalty, grad = penalty_of(values, indices, e, 5)
    assert penalty.item() == pytest.approx(0.4)  # latent 0 alone has a pair, of cosine 0.6
    # With a single pair the score is its cosine, whatever the activations.
    assert grad.abs().max() <= 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("value", [1e-30, 1.0, 3.0, 1e30])
def test_constant_and_tied_activations_are_the_mean_cosine(value: float) -> None:
    indices, values = torch.zeros(4, 1, dtype=torch.int64), torch.full((4, 1), value)
    e = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -2.0]])
    penalty, grad = penalty_of(values, indices, e, 1)
    assert penalty.item() == pytest.approx(1 - (1 + 0 + 0 + 0 + 0 - 1) / 6)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_cannot_be_told_from_one_activation_stays_finite(dtype: torch.dtype) -> None:
    indices = torch.zeros(3, 1, dtype=torch.int64)
    values = torch.tensor([[1.0], [1e-7], [1e-7]], dtype=dtype)
    penalty, grad = penalty_of(values, indices, torch.eye(3, dtype=dtype), 1)
    assert penalty in (0, 1), "nothing scored, or orthogonal images"
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_silent_batch_costs_nothing(rows: int) -> None:
    shape = (rows, 2)
    indices = torch.zeros(shape, dtype=torch.int64) + torch.arange(2)
    penalty, grad = penalty_of(torch.zeros(shape), indices, torch.ones(rows, 4), 3)
    assert penalty == 0 and not grad.any()


def test_a_sample_whose_embedding_is_zero_does_not_count() -> None:
    indices, e = torch.zeros(4, 1, dtype=torch.int64), batch(4, 3).float()
    values = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    e[3] = 0
    with_it, grad = penalty_of(values, indices, e, 1)
    without, _ = penalty_of(values[:3], indices[:3], e[:3], 1)
    assert with_it == without and grad[3] == 0 and torch.isfinite(grad).all()


def test_neither_the_size_of_activations_nor_of_embeddings_matters() -> None:
    sae, x = untied(6, 40, 4), batch(23, 6)
    code = sae.encode(x)
    loss, arguments = MonosemanticityLoss(1.0), (code.indices, 40)
    plain = loss.code_penalty(code.values, *arguments, x)
    scaled = loss.code_penalty(code.values * 1e5, *arguments, x * torch.rand(23, 1) * 1e-5)
    assert_close("penalty", scaled, plain, 1e-12)


def test_raw_inputs_are_compared_where_normalisation_is_by_row() -> None:
    sae = untied(6, 40, 4)
    sae.normalization = "layer_norm"
    x = batch(23, 6) + 3
    normalized = sae.normalize(x).x
    regularizer = MonosemanticityLoss(1.0)
    own = objective(sae, normalized, regularizer=regularizer, embeddings=x).penalty
    assert own < objective(sae, normalized, regularizer=regularizer).penalty / 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_codes_are_summed_in_float32(dtype: torch.dtype) -> None:
    sae, x = untied(6, 40, 4), batch(3000, 6)
    code = sae.encode(x)
    narrow = MonosemanticityLoss(1.0).code_penalty(code.values.to(dtype), code.indices, 40, x)
    exact = MonosemanticityLoss(1.0).code_penalty(code.values, code.indices, 40, x)
    assert narrow.dtype == torch.float32
    assert_close("penalty", narrow, exact, 4 * torch.finfo(dtype).eps)


def test_it_takes_memory_of_a_batch_and_not_of_its_pairs() -> None:
    """B k d_e numbers would be 2 GB."""
    values = torch.rand(4096, 32)
    indices = torch.rand(4096, 8192).topk(32).indices
    tracked = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            tracked.extend(
                t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor)
            )
            return out

    e = torch.randn(4096, 256)
    with Largest():
        penalty_of(values, indices, e, 8192)
    assert max(tracked) <= 8192 * 256


def test_steps_along_its_gradient_make_codes_more_monosemantic() -> None:
    sae, x = untied(6, 40, 4), batch(200, 6)
    optimizer = torch.optim.Adam(sae.parameters(), lr=0.02)
    penalties = []
    for _ in range(40):
        penalty = objective(sae, x, regularizer=MonosemanticityLoss(1.0)).penalty
        penalties.append(penalty.item())
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
    assert penalties[-1] < 0.8 * penalties[0]


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_the_weight_is_checked(weight: float) -> None:
    with pytest.raises(LightsaeError, match="weight must be at least 0 and finite"):
        MonosemanticityLoss(weight)


def test_embeddings_are_of_the_input_or_of_the_data() -> None:
    with pytest.raises(LightsaeError, match="embeddings is 'clip', expected 'input' or 'data'"):
        MonosemanticityLoss(0.1, embeddings="clip")  # type: ignore[arg-type]
    x, other = batch(3, 2), batch(3, 4)
    assert MonosemanticityLoss(0.1).chosen_embeddings(x, other) is x
    from_data = MonosemanticityLoss(0.1, embeddings="data")
    assert from_data.chosen_embeddings(x, other) is other
    with pytest.raises(LightsaeError, match="give the data module embeddings"):
        from_data.chosen_embeddings(x, None)


class MeanActivation(CodeRegularizer):
    """A user's own penalty on the code."""

    def code_penalty(
        self,
        values: Tensor,
        indices: Tensor,
        d_sae: int,
        embeddings: Tensor,
        process_group: Any = None,
    ) -> Tensor:
        return values.mean()


def test_a_users_penalty_on_the_code_is_part_of_the_loss() -> None:
    sae, x = untied(6, 40, 4), batch(23, 6)
    parts = objective(sae, x, regularizer=MeanActivation(0.5))
    assert_close("penalty", parts.penalty, sae.encode(x).values.mean(), 1e-12)
    assert_close("loss", parts.loss, parts.reconstruction + 0.5 * parts.penalty, 1e-12)


@pytest.mark.parametrize("make", [OffSupportL1, MonosemanticityLoss])
def test_lambda_rises_linearly_from_0(make: Callable[..., Any]) -> None:
    regularizer = make(0.6, weight_warmup=3)
    assert [regularizer.weight_at(step) for step in range(5)] == pytest.approx(
        [0, 0.2, 0.4, 0.6, 0.6]
    )
    assert [make(0.6).weight_at(step) for step in range(2)] == [0.6, 0.6]
    with pytest.raises(LightsaeError, match="weight_warmup must be at least 0 steps, got -1"):
        make(0.6, weight_warmup=-1)


ROWS, SPLIT = 17, (11, 6)


def run(rows: slice, process_group: Any) -> dict[str, Tensor]:
    sae, x = untied(5, 12, 3), batch(ROWS, 5)[rows]
    parts = objective(
        sae, x, regularizer=MonosemanticityLoss(0.5), process_group=process_group,
        embeddings=batch(ROWS, 4, seed=3)[rows],
    )  # fmt: skip
    share = torch.tensor(len(x) * 2 / ROWS, dtype=torch.float64)
    parts = parts.weighted(1.0 if process_group is None else share)
    parts.loss.backward()
    gradients = {name: p.grad for name, p in sae.named_parameters() if p.grad is not None}
    return {"penalty": parts.penalty.detach(), "loss": parts.loss.detach(), **gradients}


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    share = slice(0, SPLIT[0]) if rank == 0 else slice(SPLIT[0], ROWS)
    torch.save(run(share, group.WORLD), folder / f"{rank}.pt")
    destroy_process_group()


@pytest.mark.slow
def test_two_ranks_with_unequal_parts_are_one_with_the_whole(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, args=(tmp_path,), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    whole = run(slice(0, ROWS), None)
    assert whole.keys() == ranks[0].keys() and len(whole) == 6
    for name, expected in whole.items():
        assert_close(name, (ranks[0][name] + ranks[1][name]) / 2, expected, 1e-10)
    halves = [run(slice(0, SPLIT[0]), None), run(slice(SPLIT[0], ROWS), None)]
    alone = sum(half["penalty"] * rows / ROWS for half, rows in zip(halves, SPLIT, strict=True))
    assert abs(alone - whole["penalty"]) > 1e-3, "each rank by itself would be another penalty"
