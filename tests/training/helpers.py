"""Small shards, and a trainer like the one that the command line makes."""

import multiprocessing
import os
import socket
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer

from lightsae.activations import ActivationDataModule, Manifest, ShardWriter
from lightsae.cli import main
from lightsae.runs.log_filter import quieten
from lightsae.sae import TopK
from lightsae.training import (
    AtomicCheckpointIO,
    MetricsFile,
    ResumePoint,
    RewindMetrics,
    SAEModule,
)

D_IN, D_OUT, D_SAE, K = 6, 5, 24, 3
# As a run tells them in its first line.
SIZES = f"(d_in {D_IN}, d_sae {D_SAE}, k {K}, 318 parameters)"


def write_shards(
    folder: Path,
    rows: int = 200,
    d_in: int = D_IN,
    labels: bool = False,
    dtype: str = "float32",
    layer: str = "",
) -> Path:
    """Sparse combinations of fixed directions around a mean that is not zero."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(D_SAE, d_in, generator=generator)
    strengths = (torch.randn(rows, D_SAE, generator=generator) - 1.5).relu()
    x = strengths @ directions + 2
    manifest = Manifest(d_in=d_in, dtype=dtype, has_labels=labels, layer=layer)
    with ShardWriter(folder, manifest, rows_per_shard=80, chunk_rows=8) as writer:
        for part in torch.arange(rows).split(40):
            writer.write(x[part], part, label=part % 3 if labels else None)
    return folder


def write_targets(
    folder: Path, inputs: Path, d_out: int = D_OUT, seed: int = 1, skipped: int | None = None
) -> Path:
    """Of each row of shards a linear map, and few directions where the row is far along others.

    Of the skipped sample there is nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = ActivationDataModule(str(inputs), val_fraction=0, test_fraction=0)
    linear, read, written = (
        torch.randn(shape, generator=generator) for shape in ((D_IN, d_out), (D_IN, 8), (8, d_out))
    )
    manifest = Manifest(d_out, "float32")
    with ShardWriter(folder, manifest, rows_per_shard=80, chunk_rows=12) as writer:
        for batch in rows.predict_dataloader():
            x = batch.activations - 2
            y = x @ linear + 3 * (x @ read - 3).relu() @ written - 1
            kept = batch.sample_index != (-1 if skipped is None else skipped)
            writer.write(y[kept], batch.sample_index[kept], batch.token_index[kept])
    return folder


def make_data(folder: Path, **options: Any) -> ActivationDataModule:
    """Batches of 16 rows, 160 of 200 for training."""
    defaults = {"batch_size": 16, "val_fraction": 0.1, "test_fraction": 0.1, "buffer_rows": 64}
    return ActivationDataModule(str(folder), **(defaults | options))


def make_module(seed: int = 0, **options: Any) -> SAEModule:
    """A module whose weights the seed alone decides."""
    torch.manual_seed(seed)
    return SAEModule(**({"d_sae": D_SAE, "selection": TopK(K)} | options))


def make_trainer(
    run: Path, *, every: int = 1000, callbacks: Any = (), late: Any = (), **options: Any
) -> Trainer:
    """Logs to run/metrics.jsonl and keeps run/last.ckpt; `late` callbacks come after that."""
    quieten()
    ours = [RewindMetrics(), ResumePoint(run / "last.ckpt", every)]
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
        "logger": MetricsFile(run / "metrics.jsonl"),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "plugins": [AtomicCheckpointIO()],
    }
    return Trainer(callbacks=[*callbacks, *ours, *late], **(defaults | options))


def metrics(run: Path) -> list[dict[str, Any]]:
    """What a run logged, without its speed."""
    rows = MetricsFile(run / "metrics.jsonl").rows()
    return [{k: v for k, v in row.items() if k != "train/tokens_per_second"} for row in rows]


def write_config(path: Path, shards: Path, **changes: Any) -> Path:
    """A YAML for `lightsae fit`; `changes` are keyed by dotted path with __ for the dot."""
    config: dict[str, Any] = {
        "seed_everything": 3,
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 2,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
        "model": {
            "class_path": "lightsae.training.SAEModule",
            "init_args": {
                "d_sae": D_SAE,
                "selection": {"class_path": "lightsae.sae.TopK", "init_args": {"k": K}},
                "regularizer": {
                    "class_path": "lightsae.sae.L1L2Ratio",
                    "init_args": {"weight": 0.05},
                },
                "aux_k": {"k_aux": 4, "dead_after": 16},
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}},
            },
        },
        "data": {
            "class_path": "lightsae.activations.ActivationDataModule",
            "init_args": {
                "path": str(shards),
                "batch_size": 16,
                "val_fraction": 0.1,
                "test_fraction": 0.1,
                "buffer_rows": 64,
            },
        },
    }
    for key, value in changes.items():
        *folders, last = key.split("__")
        target = config
        for folder in folders:
            target = target[folder]
        target[last] = value
    path.write_text(yaml.safe_dump(config))
    return path


def _run(words: list[str], variables: dict[str, str]) -> None:
    torch.set_num_threads(1)
    os.environ.update(variables)
    sys.exit(main(words))


def start(*words: object, **variables: object) -> BaseProcess:
    """The command line in a new process; a server that has imported everything forks it."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["lightsae.runs.run_cli"])
    texts = {name: str(value) for name, value in variables.items()}
    process = processes.Process(target=_run, args=([str(word) for word in words], texts))
    process.start()
    return process


def finish(*processes: BaseProcess) -> list[int | None]:
    """Exit codes, None for one that does not end."""
    for process in processes:
        process.join(timeout=120)
    return [process.exitcode for process in processes]


def start_pair(*words: object) -> list[BaseProcess]:
    """Two processes of one run, as a cluster would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "NODE_RANK": 0}
    devices = ("--trainer.devices", 2, "--trainer.accelerator", "cpu")
    return [start(*words, *devices, **place, LOCAL_RANK=rank) for rank in range(2)]


def command(*words: object) -> list[str]:
    """The command line in a process of its own."""
    return [sys.executable, "-m", "lightsae", *map(str, words)]


def environment(modules: Path | None = None) -> dict[str, str]:
    """One thread, and where user's own modules lie."""
    path = [str(modules)] * (modules is not None) + [os.environ.get("PYTHONPATH", "")]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, path))}
