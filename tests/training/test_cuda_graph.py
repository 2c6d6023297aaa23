"""The recorded step: what it refuses, and that it trains as the unrecorded one does."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.sae import (
    AuxK,
    BatchTopK,
    JumpReLU,
    L1L2Ratio,
    Matryoshka,
    MonosemanticityLoss,
    Objective,
    Regularizer,
    TopK,
    TranscoderOptions,
    VocabularyAnchor,
)
from lightsae.training import SAEAdam, SAEModule, WarmupDecay
from lightsae.training.cuda_graph import WARMUP, CapturedStep, require_capturable
from lightsae.training.module_parts import optimization

from .helpers import make_data, make_module, make_trainer


class Replays:
    """Records by remembering the call; counts what was run and what was replayed."""

    def __init__(self, *_: Any) -> None:
        self.runs = self.replays = 0

    def run(self, step: Callable[[], Objective]) -> Objective:
        self.runs += 1
        return step()

    def record(self, step: Callable[[], Objective]) -> Callable[[], Objective]:
        def replay() -> Objective:
            self.replays += 1
            return step()

        return replay


def test_equal_shapes_are_replayed_on_the_same_memory() -> None:
    seen = []
    recorder = Replays()

    def step(x: torch.Tensor) -> Any:
        seen.append((x.data_ptr(), x.tolist()))
        return None

    captured = CapturedStep(step, recorder)
    for number in range(WARMUP + 3):
        captured(torch.tensor([float(number)]))
    assert (recorder.runs, recorder.replays) == (WARMUP, 3)
    assert [values for _, values in seen] == [[float(n)] for n in range(WARMUP + 3)]
    assert len({pointer for pointer, _ in seen[WARMUP:]}) == 1


def test_a_batch_of_another_shape_is_run() -> None:
    recorder = Replays()
    captured = CapturedStep(lambda x: x, recorder)  # type: ignore[arg-type, return-value]
    for rows in (2, 2, 2, 2, 1, 2):
        captured(torch.ones(rows))
    assert (recorder.runs, recorder.replays) == (WARMUP + 1, 2)


def optimizer(parameters: Any) -> torch.optim.Optimizer:
    return SAEAdam(parameters, lr=torch.tensor(1e-2))


@pytest.mark.parametrize(
    ("options", "regularizer"),
    [
        ({}, L1L2Ratio(0.01)),
        ({"gradient_clip_val": 0.01}, L1L2Ratio(0.01)),
        ({"precision": "bf16-mixed"}, L1L2Ratio(0.01)),
        ({}, L1L2Ratio(0.01, weight_warmup=11)),
        ({}, MonosemanticityLoss(0.1)),
    ],
    ids=["plain", "clipped", "bf16-mixed", "warm-up", "monosemanticity"],
)
def test_training_equals_that_without_a_graph(
    options: dict[str, Any],
    regularizer: Regularizer,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Replays()
    monkeypatch.setattr(optimization, "require_capturable", lambda *_: None)
    monkeypatch.setattr(optimization, "CudaRecorder", lambda _: recorder)

    def trained(cuda_graph: bool) -> tuple[SAEModule, Any]:
        module = make_module(
            optimizer=optimizer, regularizer=regularizer, aux_k=None, cuda_graph=cuda_graph,
            lr_scheduler=lambda o: WarmupDecay(o, warmup_steps=3, decay_steps=5),
        )  # fmt: skip
        trainer = make_trainer(tmp_path / str(cuda_graph), max_epochs=2, **options)
        trainer.fit(module, make_data(shards))
        return module, trainer

    expected, plain = trained(False)
    found, captured = trained(True)
    assert captured.global_step == plain.global_step == recorder.runs + recorder.replays
    assert recorder.replays > WARMUP
    for (name, one), other in zip(
        expected.state_dict().items(), found.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    assert {k: v for k, v in captured.logged_metrics.items() if "tokens" not in k} == {
        k: v for k, v in plain.logged_metrics.items() if "tokens" not in k
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"optimizer": torch.optim.Adam([torch.ones(1)])}, "the optimizer must be .*SAEAdam"),
        ({"aux_k": AuxK()}, "aux_k must be null"),
        ({"accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches must be 1"),
        ({"precision": "16-mixed"}, "trainer.precision must not be 16-mixed"),
        ({"world_size": 2}, "there must be one process"),
        ({"device": "cpu"}, "it needs a GPU"),
        ({"selection": BatchTopK(2)}, "selection must keep .* of each row, BatchTopK does not"),
        ({"selection": JumpReLU(2)}, "selection must keep .* of each row, JumpReLU does not"),
        ({"reconstruction": Matryoshka([0.5])}, "reconstruction must be null, it is Matryoshka"),
        ({"transcoder": TranscoderOptions()}, "transcoder must be null"),
        ({"anchor": VocabularyAnchor(0.1, torch.eye(2))}, "anchor must be null"),
        (
            {"regularizer": MonosemanticityLoss(0.1, embeddings="data")},
            "MonosemanticityLoss must take its embeddings from the input",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_graph_cannot_hold_is_refused(change: dict[str, Any], says: str) -> None:
    settings = {
        "optimizer": SAEAdam([torch.ones(1)]), "aux_k": None, "accumulate_grad_batches": 1,
        "precision": "bf16-mixed", "world_size": 1, "device": "cuda", "regularizer": None,
        "selection": TopK(2), "reconstruction": None, "transcoder": None,
        "anchor": None,
    } | change  # fmt: skip
    strategy = SimpleNamespace(root_device=torch.device(settings["device"]))
    trainer: Any = SimpleNamespace(strategy=strategy, **settings)
    with pytest.raises(LightsaeError, match=f"cuda_graph: {says}"):
        told = (
            "optimizer", "aux_k", "regularizer", "selection", "reconstruction", "transcoder",
            "anchor",
        )  # fmt: skip
        require_capturable(trainer, *(settings[name] for name in told))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told_before_training(shards: Path, tmp_path: Path) -> None:
    module = make_module(optimizer=optimizer, aux_k=None, cuda_graph=True)
    with pytest.raises(LightsaeError, match="cuda_graph: it needs a GPU"):
        make_trainer(tmp_path, max_epochs=1).fit(module, make_data(shards))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_on_the_gpu_ends_in_the_same_bits(shards: Path, tmp_path: Path) -> None:
    def trained(cuda_graph: bool) -> SAEModule:
        module = make_module(
            optimizer=optimizer, regularizer=L1L2Ratio(0.01), aux_k=None, cuda_graph=cuda_graph
        )
        trainer = make_trainer(tmp_path / str(cuda_graph), max_epochs=2, accelerator="gpu")
        trainer.fit(module, make_data(shards))
        return module

    expected, found = (trained(graph).state_dict() for graph in (False, True))
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
