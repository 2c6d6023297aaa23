"""Losses of nested parts: settings, and what Matryoshka prefixes learn."""

from typing import Any

import pytest
import torch
from lightsae_kernels import Encoded
from torch import Tensor
from torch.nn import functional as F

from lightsae.errors import LightsaeError
from lightsae.sae import (
    AuxK,
    BatchTopK,
    Matryoshka,
    MultiTopK,
    Reconstruction,
    SparseAutoencoder,
    TopK,
    objective,
)
from lightsae.training import DeadLatentTracker


@pytest.mark.parametrize(
    ("prefixes", "sizes"),
    [
        ([0.125, 0.5], [8, 32, 64]),
        ([0.25, 1.0], [16, 64]),
        ([5, 20], [5, 20, 64]),
        ([5, 64], [5, 64]),
        ([64], [64]),
        ([0.5, 1], [32, 64]),
    ],
)
def test_prefixes_are_latents_or_shares_and_end_with_all(
    prefixes: list[float], sizes: list[int]
) -> None:
    assert Matryoshka(prefixes).sizes(64) == sizes


@pytest.mark.parametrize("prefixes", [[0.5, 0.25], [20, 5], [100], [0.001], [5, 5]])
def test_prefixes_that_do_not_ascend_within_the_dictionary_are_refused(
    prefixes: list[float],
) -> None:
    with pytest.raises(LightsaeError, match=r"expected ascending sizes of at least 1"):
        Matryoshka(prefixes).sizes(64)


@pytest.mark.parametrize(
    "prefixes",
    [[], [-1], [0], [2.5], [float("nan")], [0.5, float("inf")], ["8"], [None], [True], 8, "8"],
)
def test_prefixes_that_are_no_sizes_are_refused(prefixes: Any) -> None:
    with pytest.raises(LightsaeError, match="expected numbers of latents or shares up to 1"):
        Matryoshka(prefixes)


def test_another_way_to_combine_is_refused() -> None:
    with pytest.raises(LightsaeError, match="combine is 'max', expected 'sum' or 'mean'"):
        Matryoshka([0.5], combine="max")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings", [{"multiple": 1}, {"multiple": 2.5}, {"weight": 0.0}, {"weight": float("inf")}]
)
def test_settings_of_multi_topk_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(LightsaeError, match=f"{next(iter(settings))} must be"):
        MultiTopK(**settings)


def test_multi_topk_goes_with_topk_alone() -> None:
    sae = SparseAutoencoder(4, 16, BatchTopK(2))
    with pytest.raises(LightsaeError, match="MultiTopK goes with selection TopK, got BatchTopK"):
        objective(sae, torch.randn(3, 4), reconstruction=MultiTopK())


@pytest.mark.parametrize("loss", [Matryoshka([0.5]), MultiTopK()], ids=["matryoshka", "multi"])
def test_code_and_residual_are_those_of_the_plain_loss(loss: Reconstruction) -> None:
    torch.manual_seed(0)
    sae, x = SparseAutoencoder(6, 32, TopK(3)), torch.randn(20, 6)
    nested, plain = objective(sae, x, reconstruction=loss), objective(sae, x)
    assert torch.equal(nested.encoded.indices, plain.encoded.indices)
    assert torch.equal(nested.encoded.batch_active, plain.encoded.batch_active)
    torch.testing.assert_close(nested.residual, plain.residual)


@pytest.mark.parametrize("loss", [Matryoshka([0.5]), MultiTopK()], ids=["matryoshka", "multi"])
def test_the_residual_of_a_bfloat16_model_is_float32(loss: Reconstruction) -> None:
    sae = SparseAutoencoder(6, 32, TopK(3)).to(torch.bfloat16)
    residual = objective(sae, torch.randn(20, 6).bfloat16(), reconstruction=loss).residual
    assert residual.dtype == torch.float32


def hierarchy(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Samples of one of 4 parents and one of its 4 children, and the parents' directions."""
    generator = torch.Generator().manual_seed(seed)
    parents = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(9)))[0]
    children = parents[4:20].view(4, 4, 24)
    parent = torch.randint(4, (rows,), generator=generator)
    child = torch.randint(4, (rows,), generator=generator)
    size = 1 + 0.2 * torch.rand(rows, 1, generator=generator)
    x = size * (parents[parent] + 0.6 * children[parent, child])
    return x + 0.02 * torch.randn(rows, 24, generator=generator), parents[:4]


@pytest.mark.parametrize("rule", [TopK, BatchTopK])
def test_the_first_prefix_learns_the_parents_of_a_hierarchy(rule: Any) -> None:
    """Without the loss of a prefix its latents learn parents and children as it happens."""
    x, parents = hierarchy(4000, seed=0)
    found = {}
    for name, loss in (("nested", Matryoshka([8])), ("plain", None)):
        torch.manual_seed(1)
        sae = SparseAutoencoder(24, 32, rule(3), "none")
        # A centre would take a share of every parent.
        sae.b_dec.requires_grad_(False)
        optimizer = torch.optim.Adam([p for p in sae.parameters() if p.requires_grad], 1e-2)
        tracker = DeadLatentTracker(32)

        def dead(encoded: Encoded, tracker: DeadLatentTracker = tracker) -> Tensor:
            tracker.update(encoded)
            return tracker.dead(dead_after=1024)

        for step in range(250):
            batch = x[(torch.arange(256) + 256 * step) % 4000]
            parts = objective(sae, batch, reconstruction=loss, aux_k=AuxK(weight=0.25), dead=dead)
            parts.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            sae.normalize_decoder_()
        cosines = F.normalize(sae.W_dec[:8].detach(), dim=1) @ parents.T
        found[name] = cosines.amax(dim=0).mean().item()
    assert found["nested"] > 0.85, found
    assert found["nested"] > found["plain"] + 0.25, found
