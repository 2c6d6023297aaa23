"""The whole training step as one CUDA graph."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from lightsae_kernels import Encoded
from torch import Tensor, nn
from torch.optim import Optimizer

from lightsae.errors import LightsaeError
from lightsae.sae import (
    MonosemanticityLoss,
    Objective,
    Reconstruction,
    Regularizer,
    Selection,
    TranscoderOptions,
    VocabularyAnchor,
)
from lightsae.training.optimizer import SAEAdam

Step = Callable[[Tensor], Objective]

WARMUP = 3


class Recorder(Protocol):
    """Runs a step at once, or records it without running it."""

    def run(self, step: Callable[[], Objective]) -> Objective:
        """What the step returns."""
        ...

    def record(self, step: Callable[[], Objective]) -> Callable[[], Objective]:
        """A function that runs the same work on the same memory."""
        ...


class CudaRecorder:
    """A stream of its own, on which gradients must accumulate before they are recorded."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def run(self, step: Callable[[], Objective]) -> Objective:
        """Run on the stream, between what came before and what comes after."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            found = step()
        current.wait_stream(self._stream)
        return found

    def record(self, step: Callable[[], Objective]) -> Callable[[], Objective]:
        """Record into a graph."""
        graph = torch.cuda.CUDAGraph()
        # Reading threads pin memory meanwhile, which only a capture of every thread would forbid.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            found = step()

        def replay() -> Objective:
            graph.replay()
            return found

        return replay


class CapturedStep:
    """A training step that is recorded once and replayed for batches of the same shape.

    The first batches run as they come; so does a batch of another shape, such as the last one.

    Args:
        step: Trains on activations [B, d_in]; forward, backward and optimizer.
        recorder: Runs and records.

    Example:
        >>> class Eager:
        ...     run = staticmethod(lambda step: step())
        ...     record = staticmethod(lambda step: step)
        >>> step = CapturedStep(lambda x: x.sum(), Eager())
        >>> [step(torch.ones(2, n)).item() for n in (1, 1, 1, 1, 1, 3)]
        [2.0, 2.0, 2.0, 2.0, 2.0, 6.0]
    """

    def __init__(self, step: Step, recorder: Recorder) -> None:
        self._step, self._recorder = step, recorder
        self._warm = 0
        self._x: Tensor | None = None
        self._replay: Callable[[], Objective] | None = None

    def __call__(self, x: Tensor) -> Objective:
        """Train on a batch; what is returned holds until the next call."""
        if self._warm < WARMUP:
            self._warm += 1
            return self._recorder.run(lambda: self._step(x))
        if self._x is None:
            self._x = x.clone()
        if (x.shape, x.dtype) != (self._x.shape, self._x.dtype):
            return self._recorder.run(lambda: self._step(x))
        self._x.copy_(x)
        if self._replay is None:
            held = self._x
            self._replay = self._recorder.record(lambda: self._step(held))
        return self._replay()


def require_capturable(
    trainer: Trainer,
    optimizer: Optimizer,
    aux_k: Any,
    regularizer: Regularizer | None = None,
    selection: Selection | None = None,
    reconstruction: Reconstruction | None = None,
    transcoder: TranscoderOptions | None = None,
    anchor: VocabularyAnchor | None = None,
) -> None:
    """Refuse what a graph cannot hold, before anything is trained.

    Raises:
        LightsaeError: Naming the setting.
    """
    reads_data = isinstance(regularizer, MonosemanticityLoss) and regularizer.embeddings == "data"
    learns = isinstance(selection, nn.Module)
    obstacles = {
        "MonosemanticityLoss must take its embeddings from the input": reads_data,
        "the optimizer must be lightsae.training.SAEAdam": not isinstance(optimizer, SAEAdam),
        f"selection must keep as many latents of each row, {type(selection).__name__} does not": (
            learns
        ),
        f"reconstruction must be null, it is {type(reconstruction).__name__}": (
            reconstruction is not None
        ),
        "transcoder must be null: a recorded step takes no targets": transcoder is not None,
        "anchor must be null: it is a part of some steps alone": anchor is not None,
        "aux_k must be null: the number of dead latents changes shapes": aux_k is not None,
        "trainer.accumulate_grad_batches must be 1": trainer.accumulate_grad_batches != 1,
        "trainer.precision must not be 16-mixed": trainer.precision == "16-mixed",
        "there must be one process": trainer.world_size > 1,
        "it needs a GPU": trainer.strategy.root_device.type != "cuda",
    }
    for expected, found in obstacles.items():
        if found:
            raise LightsaeError(f"cuda_graph: {expected}")


def read_lr_on_device(optimizer: Optimizer, device: torch.device) -> None:
    """Keep learning rates where a recorded step reads them, so that a schedule goes on."""
    for group in optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)


def without_autocast(device: torch.device) -> Any:
    """Gradients and steps are in the dtype of their tensors."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if enabled else nullcontext()


def detached(parts: Objective) -> Objective:
    """The same numbers without their graph."""
    encoded = Encoded(*map(_detached, parts.encoded))
    rest = {name: getattr(parts, name) for name in parts._fields if name != "encoded"}
    return Objective(**{name: _detached(t) for name, t in rest.items()}, encoded=encoded)


def _detached(tensor: Any) -> Any:
    return None if tensor is None else tensor.detach()
