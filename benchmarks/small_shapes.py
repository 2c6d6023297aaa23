"""Every fused operation once, at small ragged shapes: what compute-sanitizer is pointed at.

    compute-sanitizer --tool memcheck python benchmarks/small_shapes.py

With TRITON_INTERPRET=1 it runs on the CPU, at a tiny shape.
"""

import os

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
from lightsae_kernels import (
    AdamSettings,
    adam_step_,
    encode_residual,
    encode_topk,
    raise_if_flagged,
    sparse_decode,
    sparse_residual,
)
from lightsae_kernels.memory import bounded

SHAPES = {"cuda": ((41, 80, 401, 7), (5, 33, 130, 1)), "cpu": ((1, 5, 9, 1),)}
REGULARIZERS = (None, "off_support_l1", "l1_l2_ratio")


@torch.enable_grad()
def loss_and_gradients(encoder: list[torch.Tensor], k: int) -> None:
    """Every backward kernel: both regularizers, kept and made again."""
    leaves = [t.detach().requires_grad_() for t in encoder]
    for regularizer in ("off_support_l1", "l1_l2_ratio"):
        for recompute in (False, True):
            with bounded(block_bytes=1, recompute=recompute):
                code = encode_topk(*leaves, k, regularizer=regularizer, backend="triton")
                error = sparse_residual(
                    leaves[0], code.values, code.indices, leaves[1], leaves[3], backend="triton"
                ).error
                torch.autograd.grad(error.mean() + code.penalty, leaves)
                x, W_enc, b_enc, b_dec = leaves
                W_dec = W_enc.detach().clone().requires_grad_()
                code, left = encode_residual(
                    x, W_enc, b_enc, W_dec, b_dec, k, regularizer=regularizer, backend="triton"
                )
                torch.autograd.grad(left.error.mean() + code.penalty, [*leaves, W_dec])


def steps(W: torch.Tensor) -> None:
    """The optimizer with every treatment of a decoder, and with moments of its own dtype."""
    settings = AdamSettings(lr=1e-3, project=True, normalize=True)
    step, copy = torch.ones((), device=W.device), torch.empty_like(W)
    for dtype in (torch.float32, W.dtype):
        moments = torch.zeros_like(W, dtype=dtype), torch.zeros_like(W, dtype=dtype)
        adam_step_(W.clone(), W.flip(0), *moments, step, settings, copy, backend="triton")


@torch.no_grad()
def main() -> None:
    device = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
    dtypes = [torch.float16, torch.float32]
    if device.type == "cuda":
        dtypes.append(torch.bfloat16)  # the interpreter gets its products wrong
    calls = 0
    for B, d_in, d_sae, k in SHAPES[device.type]:
        for dtype in dtypes:
            encoder = [
                torch.randn(*shape, dtype=dtype, device=device)
                for shape in ((B, d_in), (d_sae, d_in), (d_sae,), (d_in,))
            ]
            for regularizer in REGULARIZERS:
                for recompute in (False, True):
                    with bounded(block_bytes=1, recompute=recompute):
                        code = encode_topk(*encoder, k, regularizer=regularizer, backend="triton")
                    calls += 1
            given = encode_topk(*encoder, k, indices=code.indices, backend="triton")
            unmasked = encode_topk(
                *encoder, k, regularizer="l1_l2_ratio", batch_active_only=False, backend="triton"
            )
            assert given.values.shape == unmasked.values.shape
            decoder = (code.values, code.indices, encoder[1], encoder[3])
            sparse_decode(*decoder, backend="triton")
            sparse_residual(encoder[0], *decoder, backend="triton")
            loss_and_gradients(encoder, k)
            steps(encoder[1])
            calls += 6
    raise_if_flagged()
    print(f"{calls} calls at ragged shapes on {device}")


if __name__ == "__main__":
    main()
