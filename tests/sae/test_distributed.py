"""Two gloo processes with half of the batch each are one process with the whole batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.distributed import (
    ProcessGroup,
    destroy_process_group,
    group,
    init_process_group,
)

from lightsae.sae import (
    AuxK,
    BatchTopK,
    GroupMax,
    JumpReLU,
    L1L2Ratio,
    Matryoshka,
    MultiTopK,
    OffSupportL1,
    Reconstruction,
    Selection,
    SparseAutoencoder,
    objective,
)
from lightsae.sae.regularizers import Regularizer
from lightsae.training.dead_latents import DeadLatentTracker

from .helpers import assert_close, untied

pytestmark = pytest.mark.slow

ROWS, D_IN, D_SAE, K, BATCHES = 12, 5, 40, 2, 2
SHARES = [slice(0, ROWS // 2), slice(ROWS // 2, ROWS)]
PARTS = ("loss", "reconstruction", "aux_k", "penalty")
AUX_K = AuxK(weight=0.5, k_aux=3, dead_after=ROWS, fired_above=4.0)


class SquaredOffSupport(Regularizer):
    """A user's own, which has no fused operation."""

    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        dropped = a.scatter(1, indices, 0.0) * batch_active
        return dropped.square().sum(dim=1).mean()


class Case(NamedTuple):
    regularizer: Regularizer | None = None
    rule: Selection | None = None
    reconstruction: Reconstruction | None = None


CASES: dict[str, Case] = {
    "none": Case(),
    "reg1": Case(OffSupportL1(0.3)),
    "reg1-unmasked": Case(OffSupportL1(0.3, batch_active_only=False)),
    "reg2": Case(L1L2Ratio(0.2)),
    "user": Case(SquaredOffSupport(0.1)),
    "batchtopk": Case(rule=BatchTopK(K)),
    "batchtopk-reg1": Case(OffSupportL1(0.3), BatchTopK(K)),
    "batchtopk-user": Case(SquaredOffSupport(0.1), BatchTopK(K)),
    "batchtopk-matryoshka": Case(L1L2Ratio(0.2), BatchTopK(K), Matryoshka([0.25])),
    "jumprelu": Case(rule=JumpReLU(K)),
    "jumprelu-reg2": Case(L1L2Ratio(0.2), JumpReLU(K)),
    "groupmax": Case(OffSupportL1(0.3), GroupMax(K)),
    "multi-topk": Case(reconstruction=MultiTopK()),
}


def autoencoder(case: Case) -> SparseAutoencoder:
    sae = untied(D_IN, D_SAE, K)
    if case.rule is None:
        return sae
    other = SparseAutoencoder(D_IN, D_SAE, case.rule).double()
    other.load_state_dict(sae.state_dict(), strict=False)
    if isinstance(other.selection, JumpReLU):
        other.selection.threshold.data.copy_(torch.linspace(1, 6, D_SAE))
        other.selection.eps.fill_(2.0)
        other.selection.multiplier.fill_(0.3)
    return other


def batches() -> Tensor:
    """Batches with a mean, so that the variance of a half is not that of the whole."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(BATCHES, ROWS, D_IN, generator=generator, dtype=torch.float64)
    return x + torch.arange(ROWS).view(ROWS, 1) / ROWS


def run(case: Case, share: slice, process_group: ProcessGroup | None) -> dict[str, Tensor]:
    """Parts, gradients, counters and what the rule learned after the last of the batches."""
    sae, tracker = autoencoder(case), DeadLatentTracker(D_SAE)

    def dead(encoded: Any) -> Tensor:
        tracker.update(encoded, AUX_K.fired_above, process_group)
        return tracker.dead(AUX_K.dead_after)

    for x in batches():
        sae.zero_grad()
        parts = objective(
            sae,
            x[share],
            regularizer=case.regularizer,
            reconstruction=case.reconstruction,
            aux_k=AUX_K,
            dead=dead,
            process_group=process_group,
        )
        parts.loss.backward()
    return {
        **{name: getattr(parts, name).detach() for name in PARTS},
        **{f"d {name}": p.grad.clone() for name, p in sae.named_parameters() if p.grad is not None},
        **{name: t.clone() for name, t in sae.named_buffers() if name.startswith("selection.")},
        "fired": (parts.encoded.values > 0).sum().detach(),
        "batch_active": parts.encoded.batch_active,
        "tokens_since_fired": tracker.tokens_since_fired,
        "indices": parts.encoded.indices,
    }


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {name: run(case, SHARES[rank], group.WORLD) for name, case in CASES.items()}
    torch.save(found, folder / f"{rank}.pt")
    destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("gloo")
    torch.multiprocessing.spawn(work, args=(folder,), nprocs=2)
    yield [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_loss_parts_and_gradients_average_to_those_of_the_whole(
    case: str, ranks: list[dict[str, Any]]
) -> None:
    whole = run(CASES[case], slice(0, ROWS), None)
    averaged = [name for name in whole if name in PARTS or name.startswith("d ")]
    assert len(averaged) == 8 + isinstance(CASES[case].rule, JumpReLU)
    for name in averaged:
        # Thresholds, and so their gradient, are float32 in every model.
        tolerance = 1e-6 if name == "d selection.threshold" else 1e-10
        mean = (ranks[0][case][name] + ranks[1][case][name]) / 2
        assert_close(name, mean, whole[name].double(), tolerance)


@pytest.mark.parametrize("case", CASES)
def test_every_rank_has_the_batch_active_set_and_the_dead_counters_of_the_whole(
    case: str, ranks: list[dict[str, Any]]
) -> None:
    whole = run(CASES[case], slice(0, ROWS), None)
    for rank in ranks:
        assert torch.equal(rank[case]["batch_active"], whole["batch_active"])
        assert torch.equal(rank[case]["tokens_since_fired"], whole["tokens_since_fired"])


def test_the_codes_of_the_ranks_are_those_of_the_whole_in_order(
    ranks: list[dict[str, Any]],
) -> None:
    whole = run(CASES["none"], slice(0, ROWS), None)["indices"]
    assert torch.equal(torch.cat([rank["none"]["indices"] for rank in ranks]), whole)


def test_the_comparison_is_not_empty() -> None:
    """Halves differ from the whole in every quantity that needs the other rank."""
    whole = run(CASES["reg1"], slice(0, ROWS), None)
    halves = [run(CASES["reg1"], share, None) for share in SHARES]
    dead = whole["tokens_since_fired"] >= AUX_K.dead_after
    assert 0 < dead.sum() < D_SAE
    assert (dead & whole["batch_active"]).any(), "none is dead and batch-active at once"
    for half in halves:
        assert not torch.equal(half["batch_active"], whole["batch_active"])
        assert not torch.equal(half["tokens_since_fired"], whole["tokens_since_fired"])
    for name in ("aux_k", "penalty"):
        assert not torch.isclose((halves[0][name] + halves[1][name]) / 2, whole[name], rtol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_every_rank_learns_what_one_process_learns(case: str, ranks: list[dict[str, Any]]) -> None:
    whole = run(CASES[case], slice(0, ROWS), None)
    for name, expected in whole.items():
        if name.startswith("selection."):
            for rank in ranks:
                torch.testing.assert_close(rank[case][name], expected, rtol=1e-6, atol=0)


def test_a_batch_over_ranks_has_exactly_its_number_of_pairs(ranks: list[dict[str, Any]]) -> None:
    for case in ("batchtopk", "batchtopk-reg1", "batchtopk-user"):
        fired = [int(rank[case]["fired"]) for rank in ranks]
        assert sum(fired) == ROWS * K and fired[0] != fired[1]
