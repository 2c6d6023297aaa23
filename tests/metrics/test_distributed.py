"""Every metric over three gloo processes, of which one sees nothing, equals one process."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed import destroy_process_group, init_process_group

from lightsae.metrics import ImageCodes
from tests.metrics.cases import CASES, D_SAE, ROWS, computed, data

EVERYTHING = torch.arange(ROWS)
# Images lie across the first and the last.
SHARES = [EVERYTHING[:23], EVERYTHING[:0], EVERYTHING[23:]]


def results(rows: Tensor) -> dict[str, dict[str, Tensor]]:
    return {name: computed(name, [rows] if len(rows) else []) for name in CASES}


def computed_twice(rows: Tensor) -> Tensor:
    images = ImageCodes(D_SAE)
    if len(rows):
        images.update(*(data()[name][rows] for name in ("values", "indices", "sample_index")))
    images.compute()
    return images.compute().values


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=len(SHARES))
    rows = SHARES[rank]
    torch.save({**results(rows), "twice": {"": computed_twice(rows)}}, folder / f"{rank}.pt")
    destroy_process_group()


@pytest.mark.slow
def test_three_processes_equal_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, args=(tmp_path,), nprocs=len(SHARES))
    whole = {**results(EVERYTHING), "twice": {"": computed_twice(EVERYTHING)}}
    for rank in range(len(SHARES)):
        parts = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, expected in whole.items():
            for figure, value in expected.items():
                torch.testing.assert_close(
                    parts[name][figure],
                    value,
                    rtol=1e-10,
                    atol=0,
                    equal_nan=True,
                    msg=lambda text, at=(name, figure, rank): f"{at}: {text}",
                )
