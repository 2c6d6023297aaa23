"""Every metric over two gloo processes with unequal shares equals one process."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed import destroy_process_group, init_process_group

from lightsae.metrics import (
    L0,
    R2,
    DeadLatents,
    ImageCodes,
    Monosemanticity,
    PooledCodes,
    TopActivating,
)

D_SAE, D_IN, ROWS = 9, 5, 40
SHARES = [slice(0, 11), slice(11, ROWS)]


def data() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 1e5 + torch.randn(ROWS, D_IN, generator=generator, dtype=torch.float64)
    values = torch.rand(ROWS, 3, generator=generator, dtype=torch.float64).sub(0.2).relu()
    indices = torch.rand(ROWS, D_SAE - 1, generator=generator).topk(3, dim=1).indices
    # Latent 0 fires on every row, so its minimum is positive.
    values[:, 0] = 0.5 + torch.rand(ROWS, generator=generator)
    indices = torch.cat([torch.zeros(ROWS, 1).long(), 1 + indices[:, 1:]], dim=1)
    return {
        "x": x,
        "x_hat": x + 0.3 * torch.randn(ROWS, D_IN, generator=generator, dtype=torch.float64),
        "values": values,
        "indices": indices,
        "embeddings": torch.randn(ROWS, 4, generator=generator, dtype=torch.float64),
        "sample_index": torch.arange(ROWS) % 7,
    }


def results(share: slice) -> dict[str, Tensor]:
    part = {name: tensor[share] for name, tensor in data().items()}
    codes = (part["values"], part["indices"])
    r2, l0, dead = R2(D_IN), L0(), DeadLatents(D_SAE)
    scores, top, images = Monosemanticity(D_SAE, 4), TopActivating(D_SAE, 3), ImageCodes(D_SAE)
    r2.update(x_hat=part["x_hat"], x=part["x"])
    l0.update(codes[0])
    dead.update(*codes)
    scores.update(*codes, part["embeddings"])
    top.update(*codes, part["sample_index"])
    images.update(*codes, part["sample_index"])
    pooled = images.compute()
    return {
        "r2": r2.compute(),
        "l0": l0.compute(),
        "dead": dead.compute(),
        "scores": scores.compute().scores,
        "top": top.compute().samples,
        "pooled values": pooled.values,
        "pooled keys": pooled.rows * D_SAE + pooled.indices,
        "again": images.compute().values,
        "only on rank 1": codes_seen_by_rank_1(share, part).values,
    }


def codes_seen_by_rank_1(share: slice, part: dict[str, Tensor]) -> PooledCodes:
    images = ImageCodes(D_SAE)
    if share != SHARES[0]:
        last = {name: tensor[-4:] for name, tensor in part.items()}
        images.update(last["values"], last["indices"], last["sample_index"])
    return images.compute()


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(results(SHARES[rank]), folder / f"{rank}.pt")
    destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, args=(tmp_path,), nprocs=2)
    whole = results(slice(0, ROWS))
    for rank in range(2):
        parts = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, expected in whole.items():
            torch.testing.assert_close(
                parts[name],
                expected,
                rtol=1e-10,
                atol=0,
                equal_nan=True,
                msg=lambda text, name=name, rank=rank: f"{name} on rank {rank}: {text}",
            )
