"""Memory by part: what tensors of these sizes take, and how parts move with the sizes."""

import pytest
import torch

from lightsae.planning.memory import memory_of, moments, total
from lightsae.planning.shape import Shape
from lightsae.sae import SparseAutoencoder, TopK
from lightsae.training import SAEAdam

SHAPE = Shape(d_in=300, d_sae=1000, k=8, batch=64)


def parts_of(shape: Shape, data: int = 1, latent: int = 1, kind: str = "gpu") -> dict[str, int]:
    return {part.name: part.bytes for part in memory_of(shape, data, latent, kind)}


@pytest.mark.parametrize("state", ["float32", "bfloat16", "int8"])
def test_parameters_gradients_and_moments_are_those_of_the_real_ones(state) -> None:
    sae = SparseAutoencoder(SHAPE.d_in, SHAPE.d_sae, TopK(SHAPE.k))
    optimizer = SAEAdam(sae.parameters(), state_dtype=state)
    for parameter in sae.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    held = sum(
        tensor.nbytes
        for each in optimizer.state.values()
        for name, tensor in each.items()
        if name != "step"
    )
    assert moments(SHAPE._replace(state_dtype=state), SHAPE.d_sae) == held
    real = sum(parameter.nbytes for parameter in sae.parameters())
    parts = parts_of(SHAPE)
    assert parts["parameters"] == parts["gradients"] == real


def test_a_rank_holds_its_share_of_the_latents_rounded_up() -> None:
    assert (
        parts_of(SHAPE, latent=3)["parameters"] == parts_of(SHAPE._replace(d_sae=334))["parameters"]
    )


def test_mixed_precision_adds_copies_one_on_a_cpu_and_two_on_a_gpu() -> None:
    mixed = SHAPE._replace(product="bfloat16")
    assert "narrow copies" not in parts_of(SHAPE)
    assert parts_of(mixed)["narrow copies"] == 2 * 2 * 300 * 1000
    assert parts_of(mixed, kind="cpu")["narrow copies"] == 2 * 300 * 1000


def test_only_a_regularizer_keeps_activations_of_the_whole_batch() -> None:
    wide = Shape(d_in=16, d_sae=1 << 20, k=8, batch=4096, product="bfloat16")
    kept = wide._replace(regularizer="off_support_l1")
    assert parts_of(kept)["activations"] == 2 * 4096 << 20
    assert parts_of(wide)["activations"] == 256 << 20
    assert parts_of(wide, kind="cpu")["activations"] == 12 << 20


def test_data_parallel_ranks_have_buckets_and_latent_parallel_ones_candidates() -> None:
    assert parts_of(SHAPE, data=2)["gradient buckets"] == parts_of(SHAPE)["gradients"]
    assert parts_of(SHAPE, latent=4)["candidates"] == 8 * 64 * 8 * 4
    assert not {"gradient buckets", "candidates"} & parts_of(SHAPE).keys()


def test_what_depends_on_an_assumption_says_so() -> None:
    aux = SHAPE._replace(k_aux=256, dead_share=0.1)
    told = {part.name for part in memory_of(aux, 1, 1, "gpu") if part.basis == "assumption"}
    assert told == {"rows of dead latents", "CUDA context and library"}
    assert total(memory_of(aux, 1, 1, "gpu")) > total(memory_of(SHAPE, 1, 1, "gpu"))
