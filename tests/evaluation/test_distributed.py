"""Two processes with a share of the rows each give what one gives."""

from pathlib import Path

import pytest
import torch
from torch.distributed import destroy_process_group, init_process_group

from lightsae.evaluation import EvaluationResult, evaluate

from .helpers import SAMPLES, class_shards, make_sae, open_data, patch_shards, random_rows

EMBEDDINGS = {"cnn": random_rows(3 * SAMPLES, 5), "own_input": "own_input"}


def results(folder: Path) -> dict[str, EvaluationResult]:
    options = {"rank_rows": 20, "top_images": 5, "show_progress": False}
    return {
        name: evaluate(make_sae(), open_data(folder / name), EMBEDDINGS, **options)
        for name in ("rows", "patches")
    }


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for name, result in results(folder).items():
        result.save(folder / f"{name}-{rank}")
    destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    class_shards(tmp_path / "rows")
    patch_shards(tmp_path / "patches")
    torch.multiprocessing.spawn(work, args=(tmp_path,), nprocs=2)
    for name, whole in results(tmp_path).items():
        for rank in range(2):
            part = EvaluationResult.load(tmp_path / f"{name}-{rank}")
            assert part.about["rows"] == whole.about["rows"]
            assert part.about["images"] == whole.about["images"] == 30
            assert part.scalars == pytest.approx(whole.scalars, rel=1e-9, nan_ok=True)
            assert part.curves.keys() == whole.curves.keys()
            for curve, columns in whole.curves.items():
                for column, points in columns.items():
                    assert part.curves[curve][column] == pytest.approx(points, rel=1e-9)
            for key, tensor in whole.latents.items():
                torch.testing.assert_close(
                    part.latents[key], tensor, rtol=1e-9, atol=0, equal_nan=True
                )
