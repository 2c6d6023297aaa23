"""The memory of the fused encode_topk, and that bounding it changes no gradient."""

from typing import Any

import pytest
import torch
from lightsae_kernels import encode_topk, memory
from torch import is_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .encode_cases import NAMES, PENALTIES, REGULARIZERS, Close, Make, leaves, run

pytest.importorskip("lightsae_kernels.fused")
from lightsae_kernels.fused import select, tile_configs


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_row_blocks_and_recomputing_change_nothing(
    dtype: torch.dtype, regularizer: str | None, way: str, device: torch.device,
    make_problem: Make,
) -> None:  # fmt: skip
    tensors = [t.to(dtype).to(device) for t in make_problem(40, 6, 70).encoder]
    whole = encode_topk(*tensors, 5, regularizer=regularizer, backend="triton")
    with memory.bounded(block_bytes=1, recompute=True):
        parts = encode_topk(*tensors, 5, regularizer=regularizer, backend="triton")
    assert whole.used is parts.used is None
    for name, one, other in zip(whole._fields[:-1], whole[:-1], parts[:-1], strict=True):
        if way == "library":
            # Its blocks are other products, and added in another order.
            torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3, msg=name)
        else:
            assert torch.equal(one, other), name


class Allocated(TorchDispatchMode):
    """Bytes of every tensor that any operation makes, freed or not."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        before = {
            t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if is_tensor(t)
        }
        for tensor in filter(is_tensor, tree_leaves(out)):
            if tensor.untyped_storage().data_ptr() not in before:
                size = tensor.untyped_storage().nbytes()
                self.total, self.largest = self.total + size, max(self.largest, size)
        return out


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize(("regularizer", "masked"), PENALTIES)
def test_memory_stays_within_the_documented_bound(
    regularizer: str | None, masked: bool, recompute: bool, way: str, device: torch.device,
    make_problem: Make,
) -> None:  # fmt: skip
    D, N, k, s = 16, 1500, 8, 2
    tile = tile_configs.product_options(device, torch.float16, D, N)[0] or tile_configs.INTERPRETED
    rows = block = 2 * tile.block_b
    B = 5 * tile.block_b
    tensors = [t.half().to(device) for t in make_problem(B, D, N).encoder]
    options: dict[str, Any] = {"regularizer": regularizer, "batch_active_only": masked}
    bounds = memory.bounded(block_bytes=block * N * s, recompute=recompute)
    with bounds, torch.no_grad(), Allocated() as allocated:
        encode_topk(*tensors, k, backend="triton", **options)
    kept = regularizer == "l1_l2_ratio" and masked and not recompute
    R, M = (B if kept else rows), select.maxima_columns(N, select.group_size(N, k))
    bound = R * (N + M) * s + 4 * B * k + B * k * (s + 8) + 3 * B * D * s
    if regularizer == "off_support_l1":
        bound += -(-B // tile.block_b) * N * 4 + 14 * B * k
    if regularizer == "l1_l2_ratio":
        bound += 8 * B * -(-N // tile.block_n)
    assert allocated.total >= R * N * s, "the activations were not seen"
    assert allocated.total <= bound + 32 * (B + N)
    assert kept or bound + 32 * (B + N) < B * N * s + 32 * N


@pytest.mark.parametrize("regularizer", ["off_support_l1", "l1_l2_ratio"])
@pytest.mark.parametrize("recompute", [True, False])
def test_the_backward_pass_makes_no_activations_beside_those_kept(
    recompute: bool, regularizer: str, device: torch.device, make_problem: Make
) -> None:
    D, N, k, s = 3, 600, 4, 2
    block = 32
    B = 3 * block
    tensors = [t.half().to(device).requires_grad_() for t in make_problem(B, D, N).encoder]
    tensors[0].requires_grad_(False)
    with memory.bounded(block_bytes=block * N * s, recompute=recompute):
        encoded = encode_topk(*tensors, k, regularizer=regularizer, backend="triton")
        with Allocated() as allocated:
            torch.autograd.grad(encoded.values.sum() + encoded.penalty, tensors[1:])
    made_again = block * N * s if recompute else 0
    gradients = N * (D + 1) * (4 + 4 + s)
    order = 40 * B * k + 40 * N + 4 * N * -(-B * k // 1024)
    assert made_again <= allocated.total <= made_again + gradients + order + 64 * (B + N)
    assert allocated.largest < B * N * s / 2


@pytest.mark.parametrize("regularizer", ["off_support_l1", "l1_l2_ratio"])
def test_gradients_are_the_same_whether_activations_are_kept_or_made_again(
    regularizer: str, way: str, device: torch.device, make_problem: Make, assert_close: Close
) -> None:
    def gradients(recompute: bool, block_bytes: int | None = None) -> Any:
        tensors = leaves(make_problem(48, 64, 70), torch.float16, device)
        with memory.bounded(block_bytes=block_bytes, recompute=recompute):
            return run(tensors, 5, "triton", regularizer=regularizer)[1]

    expected = gradients(False)
    for name, kept, again in zip(NAMES, expected, gradients(True), strict=True):
        assert torch.equal(again, kept), name
    for name, kept, again in zip(NAMES, expected, gradients(True, 1), strict=True):
        assert_close(f"d_{name}", again, kept, 2e-3)
