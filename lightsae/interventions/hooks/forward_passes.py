"""What is known of the forward pass that a hook runs in: thread, batch, cache."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightsae.interventions.hooks.generation import GenerateCalls

UNTOLD = -1


class ForwardPass(NamedTuple):
    """A pass of the whole model.

    Attributes:
        samples: Size of the batch, or None where no tensor is among the inputs; while a model
            generates that of its prompts, which beams multiply.
        first: Length of the first tensor among the inputs, or None.
        cached: How many places of the sequence a cache holds already, or None without a cache;
            UNTOLD where a cache does not say.
    """

    samples: int | None
    first: int | None
    cached: int | None


_UNKNOWN = ForwardPass(None, None, None)


class ForwardPasses:
    """Watches the passes of a model in the thread that made this.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._thread = threading.get_ident()
        self._running: list[ForwardPass] = []
        self._last = _UNKNOWN
        self._generate = GenerateCalls(model)
        self._handles = (
            model.register_forward_pre_hook(torch.compiler.disable(self._begin), with_kwargs=True),
            model.register_forward_hook(torch.compiler.disable(self._end), always_call=True),
        )

    @property
    def current(self) -> ForwardPass:
        """The innermost pass that is running; parts of a model may be called without one.

        While a part of a pass is repeated for the backward pass, that is the last one.
        """
        if self._running:
            return self._running[-1]
        return self._last if self.repeats else _UNKNOWN

    @property
    def ours(self) -> bool:
        """Whether the pass belongs to the thread, or repeats one of its for the backward pass.

        Threads of the autograd engine, which repeat passes where activations are checkpointed, are
        none that Python knows.
        """
        return threading.get_ident() == self._thread or self.repeats

    @property
    def repeats(self) -> bool:
        """Whether the pass is one within a backward pass, by the thread or one of the engine."""
        known = not isinstance(threading.current_thread(), threading._DummyThread)
        if known and threading.get_ident() != self._thread:
            return False
        return torch._C._current_graph_task_id() != -1

    def remove(self) -> None:
        """Watch no longer."""
        self._generate.remove()
        for handle in self._handles:
            handle.remove()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        given = (*args, *kwargs.values())
        tensors = (part for part in given if isinstance(part, Tensor) and part.ndim)
        first = next(tensors, None)
        length = None if first is None else len(first)
        prompts = self._generate.samples
        samples = length if prompts is None else prompts
        self._last = ForwardPass(samples, length, _cached(given))
        self._running.append(self._last)

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == self._thread and self._running:
            self._running.pop()


def _cached(given: Iterable[Any]) -> int | None:
    """How many places the cache among a model's inputs holds; None where there is none.

    transformers has called the argument past_key_values and cache, so its kind tells.
    """
    for part in given:
        if hasattr(part, "get_seq_length"):
            try:
                return int(part.get_seq_length())
            except ValueError:  # transformers' answer where all layers keep a state instead.
                return UNTOLD
    return None


@contextmanager
def as_written(model: nn.Module) -> Iterator[bool]:
    """Let a model that was compiled before run as it was written.

    Code that was compiled before a hook came does not call it.

    Args:
        model: The model; it is as before afterwards.

    Yields:
        Whether any part of it was compiled.
    """
    undo = []
    for part in list(model.modules()):
        original = part._modules.get("_orig_mod")
        if original is not None and "forward" in part.__dict__:
            undo.append((part, "forward", part.__dict__["forward"]))
            part.__dict__["forward"] = original.__call__
        call = part.__dict__.get("_compiled_call_impl")
        if call is not None:
            undo.append((part, "_compiled_call_impl", call))
            part.__dict__["_compiled_call_impl"] = None
    try:
        yield bool(undo)
    finally:
        for part, name, value in undo:
            part.__dict__[name] = value
