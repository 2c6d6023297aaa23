"""Rows computed by a frozen model while training waits for them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.extraction.images.batches import ImageBatch, image_batches, listed_batches
from lightsae.activations.extraction.images.image_set import ImageSet, image_name
from lightsae.activations.extraction.layer_folder import copy_numbers
from lightsae.activations.extraction.models import Inputs, LayerOutputs, LayerTap
from lightsae.activations.extraction.option_types import Compute, TokenKind
from lightsae.activations.extraction.token_rows import on_device, present_tokens
from lightsae.activations.extraction.token_selection import select_tokens
from lightsae.activations.shards.checked_read import aligned, all_finite, put_rows
from lightsae.activations.shards.dtypes import Array, storage
from lightsae.activations.shards.manifest import Manifest
from lightsae.activations.shards.reading.row_source import Piece, Place
from lightsae.errors import LightsaeError


@dataclass
class RunningModel:
    """A frozen model on a device, and which of its vectors become rows.

    Attributes:
        tap: The model and the layer.
        tokens: Token kind.
        prefix_tokens: Number of class and register tokens, if the model does not say it.
        compute: Dtype of the forward pass.
        device: Where it runs; on a GPU in a stream of its own.
        layout: A letter for each axis of the layer's output, see `LayerOutputs`; None to find it.

    Example:
        >>> tap = LayerTap(torch.nn.Sequential(torch.nn.Flatten()), "0")
        >>> model = RunningModel(tap, "class", None, "float32", torch.device("cpu"))
        >>> model(torch.zeros(2, 3, 4, 4))[0].shape
        torch.Size([2, 1, 48])
    """

    tap: LayerTap
    tokens: TokenKind
    prefix_tokens: int | None
    compute: Compute
    device: torch.device
    layout: str | None = None

    def __post_init__(self) -> None:
        self.tap.module.to(self.device)
        # Training and validation may want rows at once, and the tap hooks into the one model.
        self._alone = Lock()
        self._outputs = LayerOutputs(self.tap, self.compute, self.layout)
        self._stream: torch.cuda.Stream | None = None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self._stream = torch.cuda.Stream(self.device)

    @property
    def notes(self) -> list[str]:
        """What a user may not expect of the layer, once it has run."""
        return self._outputs.notes

    def __call__(self, images: Inputs) -> tuple[Tensor, Tensor]:
        """Run a batch `[B, C, H, W]`, or of the model's keyword arguments.

        Returns:
            Rows `[B, T, d_in]` on the CPU, and int64 `[T]`, the position of each token.

        Raises:
            LightsaeError: If the model cannot take the batch, or has no such tokens, or some are
                padding: samples would have rows of unequal number.
        """
        with self._alone, torch.cuda.stream(self._stream):
            inputs = on_device(images, self.device)
            (output,) = self._outputs(inputs)
            present = present_tokens(inputs, output)
            if present is not None and not present.all():
                raise LightsaeError(
                    "data: attention_mask is 0 for some tokens: online each sample must have as "
                    "many; lightsae extract leaves them out"
                )
            (known,) = self._outputs.prefix_tokens
            prefix = known if self.prefix_tokens is None else self.prefix_tokens
            rows, token = select_tokens(output, self.tokens, self.tap.module, prefix)
            return rows.cpu(), token


class RunningRows:
    """Rows of some images, a chunk for each forward pass; a `RowSource`.

    Args:
        model: The model.
        images: The images.
        positions: Int64 `[n]`, which of them, in the order of the chunks.
        manifest: What the rows are.
        token: Int64 `[T]`, position of each of an image's tokens.
        batch_size: Images per forward pass.
        workers: Processes that read images.
    """

    def __init__(
        self,
        model: RunningModel,
        images: ImageSet,
        positions: Array,
        manifest: Manifest,
        token: Array,
        batch_size: int,
        workers: int,
    ) -> None:
        self.manifest = manifest
        # Labels come with the images.
        self.index_ahead = False
        self._model, self._images, self._workers = model, images, workers
        self._chunks = [
            positions[start : start + batch_size] for start in range(0, len(positions), batch_size)
        ]
        self._token = token
        self._copies = copy_numbers(images.original_index)
        self._labels = np.zeros(len(images), np.int64)

    @property
    def name(self) -> str:
        """The images."""
        return self._images.name

    @property
    def stored_rows(self) -> Array:
        """Int64 `[n_chunks]`, rows of each chunk."""
        return np.array([len(chunk) for chunk in self._chunks], np.int64) * len(self._token)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of activations."""
        return self.manifest.d_in * storage(self.manifest.dtype).disk_dtype.itemsize

    def allocator(self, readers: int) -> Callable[[int], Array]:
        """What makes memory, uint8 `[size]`; the model is in this process."""
        return aligned

    def begin(self, pieces: Sequence[Piece], pool: Array) -> None:
        """No other process has the model."""

    @contextmanager
    def reading(self, chunks: Array) -> Iterator[Place]:
        """Read the images of some chunks ahead; one thread then runs the model on them in order."""
        wanted = [self._chunks[chunk] for chunk in chunks]
        with closing(listed_batches(self._images, wanted, self._workers)) as batches:

            def place(pieces: Sequence[Piece], pool: Array) -> None:
                for piece in pieces:
                    rows = self._run(next(batches))
                    first = piece.target
                    if isinstance(first, int):
                        first = np.arange(first, first + rows.size // self.row_bytes)
                    put_rows(rows, first, pool)

            yield place

    def _run(self, batch: ImageBatch) -> Array:
        """The rows of a chunk's images, as bytes of the stored dtype."""
        rows, _ = run_readable(self._model, batch)
        expected = (len(self._token), self.manifest.d_in)
        if rows.shape[1:] != expected:
            raise LightsaeError(
                f"{self.name}: images give {list(rows.shape[1:])} tokens and numbers, "
                f"the first one {list(expected)}; expected the same of each"
            )
        if batch.labels is not None:
            self._labels[batch.positions] = batch.labels.numpy()
        dtype = self.manifest.dtype
        stored = rows.to(storage(dtype).torch_dtype)
        raw: Array = stored.reshape(-1).view(torch.uint8).numpy()
        if not all_finite(raw, dtype):
            image, token, column = (int(i) for i in (~stored.isfinite()).nonzero()[0])
            name = image_name(self._images, batch.positions[image])
            value = float(rows[image, token, column])
            larger = "use buffer_dtype float32 or bfloat16, or " if dtype == "float16" else ""
            raise LightsaeError(
                f"{name}: layer {self.manifest.layer!r} gives {value:g}, which {dtype} cannot "
                f"hold: {larger}leave the image out (lightsae extract --on_error skip does)"
            )
        return raw

    def read_index(self, chunk: int) -> Array:
        """Sample index, token index and label of a chunk; labels come with the images."""
        positions, tokens = self._chunks[chunk], len(self._token)
        span = self._token[-1] + 1
        columns = [
            self._images.original_index[positions].repeat(tokens),
            (self._copies[positions][:, None] * span + self._token).reshape(-1),
        ]
        if self.manifest.has_labels:
            columns.append(self._labels[positions].repeat(tokens))
        return np.stack(columns)


def run_readable(model: RunningModel, batch: ImageBatch) -> tuple[Tensor, Tensor]:
    """Run a model on images, all of which must be readable.

    Args:
        model: The model.
        batch: The images.

    Returns:
        What the model returns.

    Raises:
        LightsaeError: Naming the first unreadable image.
    """
    if batch.problems or batch.images is None:
        raise LightsaeError(
            f"{batch.problems[0]} (online each must be; lightsae extract --on_error skip goes on "
            "without it)"
        )
    return model(batch.images)


def first_rows(model: RunningModel, images: ImageSet) -> tuple[Tensor, Tensor]:
    """What the model gives for the first image: rows `[1, T, d_in]`, and the tokens' positions.

    Raises:
        LightsaeError: If the image or the model is not what it should be.
    """
    return run_readable(model, next(image_batches(images, np.arange(1), 1, 0)))
