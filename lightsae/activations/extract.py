"""Run a frozen model over images and write one layer's activations to shards."""

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from lightsae.activations.batches import image_batches
from lightsae.activations.budget import check_room, check_spent, row_bytes
from lightsae.activations.folder import check_same, check_writable
from lightsae.activations.format import MANIFEST_NAME, Manifest
from lightsae.activations.images import ImageSet, load_images
from lightsae.activations.models import LayerTap, ModelOptions, load_model, weights_hash
from lightsae.activations.parallel import Part, run_in_processes
from lightsae.activations.preparation import DataOptions
from lightsae.activations.storage import Array, StoredDtype, storage
from lightsae.activations.tokens import TokenKind, select_tokens
from lightsae.activations.writer import ShardWriter
from lightsae.errors import LightsaeError

Compute = Literal["float32", "bfloat16", "float16"]


def extract(
    model: ModelOptions,
    data: DataOptions,
    layer: str,
    out: str,
    tokens: TokenKind = "class",
    dtype: StoredDtype = "float16",
    batch_size: int = 64,
    seed: int = 0,
    rows_per_shard: int = 262_144,
    on_error: Literal["raise", "skip"] = "raise",
    device: str = "auto",
    compute: Compute = "float32",
    workers: int = 0,
    max_bytes: int | None = None,
) -> Manifest:
    """Write a model's activations on a set of images to a folder of shards.

    Interrupted at any moment, the same command again continues after the last whole shard, and
    the result is the one of an uninterrupted run. Images are visited in a random order. Under
    torchrun each process visits a part of them; the rows and their order are the same.

    Args:
        model: The frozen model.
        data: The images.
        layer: Name of the module whose output is stored, such as blocks.11.
        out: Folder of shards to make or to finish.
        tokens: class (first token), patch (all but class and register tokens, or each place of a
            feature map), pooled (mean of those) or all.
        dtype: Stored dtype; float16 refuses values above 65504.
        batch_size: Images per forward pass.
        seed: Seed of the order of images.
        rows_per_shard: A shard ends with the forward pass that brings it to this many rows.
        on_error: What to do at an unreadable image: raise, or skip and list it.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, ...
        compute: Dtype of the forward pass.
        workers: Processes that read and prepare images; 0 does it in this one.
        max_bytes: Refuse to begin what would take more on the disk, and stop at it.

    Returns:
        The manifest of the complete folder.

    Raises:
        LightsaeError: If anything given is wrong, or the folder was begun with other settings.
    """
    folder = _out_folder(out)
    module = load_model(model)
    tap = LayerTap(module, layer)
    images, preparation = load_images(data, module)
    extraction = Extraction(
        tap=tap,
        images=images,
        out=folder,
        model_name=model.name or model.module or "",
        tokens=tokens,
        dtype=dtype,
        batch_size=batch_size,
        seed=seed,
        rows_per_shard=rows_per_shard,
        on_error=on_error,
        device=device,
        compute=compute,
        workers=workers,
        preparation=preparation,
        prefix_tokens=model.prefix_tokens,
        arguments=model.arguments,
        max_bytes=max_bytes,
    )
    return run_in_processes(extraction)


def _out_folder(out: str) -> Path:
    """The folder to write, refused before a model is loaded for nothing."""
    if not out:
        raise LightsaeError("out is '', expected a folder")
    folder = Path(out)
    if not _has_manifest(folder):
        check_writable(folder)
    return folder


def _has_manifest(folder: Path) -> bool:
    """Whether a folder was begun; os.path says no where Path raises, as for too long a name."""
    return os.path.exists(folder / MANIFEST_NAME)


@dataclass
class Extraction:
    """One extraction, as `extract` sets it up; for callers that have their own module and images.

    Attributes:
        tap: The model and the layer.
        images: The images.
        out: Folder of shards.
        model_name: Name of the model for the manifest.
        tokens: Token kind.
        dtype: Stored dtype.
        batch_size: Images per forward pass.
        seed: Seed of the order of images.
        rows_per_shard: A shard ends with the forward pass that brings it to this many rows.
        on_error: "raise" or "skip".
        device: Device of the forward pass, or "auto".
        compute: Dtype of the forward pass.
        workers: Processes that read images.
        preparation: How images are prepared, for the manifest.
        prefix_tokens: Number of class and register tokens, if the model does not say it.
        arguments: What the model was made with, for the manifest.
        show_progress: Show a progress bar and a closing line on standard error.
        max_bytes: Budget of bytes on the disk for all images.
        part: Which part of the images this process visits; its folder is complete with them.
    """

    tap: LayerTap
    images: ImageSet
    out: Path
    model_name: str
    tokens: TokenKind = "class"
    dtype: StoredDtype = "float16"
    batch_size: int = 64
    seed: int = 0
    rows_per_shard: int = 262_144
    on_error: Literal["raise", "skip"] = "raise"
    device: str = "auto"
    compute: Compute = "float32"
    workers: int = 0
    preparation: dict[str, Any] | None = None
    prefix_tokens: int | None = None
    arguments: dict[str, Any] | None = None
    show_progress: bool = True
    max_bytes: int | None = None
    part: Part = field(default_factory=Part)

    def run(self) -> Manifest:
        """Begin or continue, and return the manifest of the complete folder."""
        for name, least in (("batch_size", 1), ("rows_per_shard", 1), ("workers", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise LightsaeError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise LightsaeError(f"max_bytes is {self.max_bytes}, expected at least 1")
        storage(self.dtype)
        self._console = Console(stderr=True, quiet=not self.show_progress)
        wanted = self._wanted()
        found = Manifest.load(self.out) if _has_manifest(self.out) else None
        if found is not None and found.shards:
            wanted = replace(wanted, d_in=found.d_in)
            self._check_images(found)
            check_same(found, wanted, self.out)
            if found.complete:
                self._console.print(f"{self.out}: already complete, {found.rows} rows")
                return found
            wanted.progress = found.progress
        return self._write(wanted)

    def _check_images(self, found: Manifest) -> None:
        """Refuse to go on with other images than those that are written already."""
        there, here = found.settings.get("data"), self.images.fingerprint
        if there != here:
            raise LightsaeError(
                f"{self.images.name}: its images changed since {self.out} was begun with them "
                f"({there}, now {here}): bring them back or use another folder"
            )

    def _wanted(self) -> Manifest:
        """The manifest to be, its width unknown as yet."""
        settings = {
            "images": len(self.images),
            "data": self.images.fingerprint,
            "preparation": self.preparation or {},
            "batch_size": self.batch_size,
            "seed": self.seed,
            "rows_per_shard": self.rows_per_shard,
            "compute": self.compute,
            "prefix_tokens": self.prefix_tokens,
            "arguments": json.loads(json.dumps(self.arguments or {}, default=str)),
        }
        if self.part.world > 1:
            settings["part"] = list(self.part)
        return Manifest(
            d_in=1,
            dtype=self.dtype,
            model=self.model_name,
            weights_hash=weights_hash(self.tap.module),
            layer=self.tap.layer,
            tokens=self.tokens,
            has_labels=self.images.has_labels,
            classes=self.images.classes,
            settings=settings,
        )

    def _write(self, wanted: Manifest) -> Manifest:
        """Visit the images that are left and write their rows."""
        order = np.random.default_rng(self.seed).permutation(len(self.images))
        order = self.part.of(order, self.batch_size)
        copies = copy_numbers(self.images.original_index)
        done = int(wanted.progress.get("images", 0))
        skipped = list(wanted.progress.get("skipped", []))
        device = usable_device(self.device)
        self.tap.module.to(device)
        # Workers begin before the folder is locked, or the lock would outlive a killed parent.
        batches = image_batches(self.images, order[done:], self.batch_size, self.workers)
        writer = ShardWriter(self.out, wanted, rows_per_shard=self.rows_per_shard) if done else None
        checked = False
        try:
            with self._bar() as bar:
                task = bar.add_task("extract", total=len(order), completed=done, speed="")
                for positions, images, labels, problems in batches:
                    self._handle(problems)
                    skipped += problems
                    done = min(done + self.batch_size, len(order))
                    progress = {"images": done, "skipped": skipped.copy()}
                    if images is not None:
                        rows, token = self._rows(images.to(device))
                        if not checked:
                            self._check_room(rows, len(order), writer)
                            checked = True
                        writer = writer or self._new_writer(wanted, rows.shape[2])
                        self._write_rows(writer, rows, token, positions, copies, labels, progress)
                        check_spent(self.out, writer.bytes_written, self._budget(len(order)))
                    bar.update(task, completed=done, speed=_speed(bar, task, writer))
            if writer is None:
                raise LightsaeError(f"data: none of the {len(order)} images is readable")
            writer.finish({"images": done, "skipped": skipped})
        finally:
            if writer is not None:
                writer.abort()
        manifest = writer.manifest
        note = f", {len(skipped)} images skipped (listed in its manifest)" if skipped else ""
        self._console.print(f"{self.out}: {manifest.rows} rows of {manifest.d_in}{note}")
        return manifest

    def _budget(self, images: int) -> int | None:
        """The share of the budget that is for a number of images."""
        return None if self.max_bytes is None else self.max_bytes * images // len(self.images)

    def _check_room(self, rows: Tensor, images: int, writer: ShardWriter | None) -> None:
        """Compare what all images will take, going by the first batch, with what they may."""
        each = row_bytes(rows.shape[2], self.dtype, self.images.has_labels) * rows.shape[1]
        written = writer.bytes_written if writer is not None else 0
        check_room(self.out, each * images, written, self._budget(images))

    def _new_writer(self, wanted: Manifest, d_in: int) -> ShardWriter:
        """The writer of a new folder, once the width is known."""
        wanted = replace(wanted, d_in=d_in)
        return ShardWriter(self.out, wanted, rows_per_shard=self.rows_per_shard)

    def _handle(self, problems: list[str]) -> None:
        """Stop at the first unreadable image, unless they are to be skipped."""
        if problems and self.on_error == "raise":
            raise LightsaeError(f"{problems[0]} (on_error skip goes on without it)")
        for problem in problems:
            self._console.print(f"skipped: {problem}")

    def _rows(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `[B, T, d]` of a batch, and their positions `[T]`."""
        reduced = self.compute != "float32"
        dtype = getattr(torch, self.compute)
        with torch.autocast(images.device.type, dtype=dtype if reduced else None, enabled=reduced):
            output = self.tap(images)
        return select_tokens(output, self.tokens, self.tap.module, self.prefix_tokens)

    def _write_rows(
        self,
        writer: ShardWriter,
        rows: Tensor,
        token: Tensor,
        positions: list[int],
        copies: Array,
        labels: Tensor | None,
        progress: dict[str, Any],
    ) -> None:
        """Write the tokens of a batch; those of a copy count on after the original's."""
        kinds = rows.shape[1]
        sample = torch.from_numpy(self.images.original_index[positions])
        copy = torch.from_numpy(copies[positions])
        span = int(token[-1]) + 1
        writer.write(
            rows.flatten(0, 1),
            sample.repeat_interleave(kinds),
            (copy[:, None] * span + token).flatten(),
            labels.repeat_interleave(kinds) if labels is not None else None,
            progress,
        )

    def _bar(self) -> Progress:
        """A progress bar that tells images per second, bytes and remaining time."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        tail = (TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
        return Progress(*columns, *tail, console=self._console)


def usable_device(name: str) -> torch.device:
    """The device of a name.

    Args:
        name: auto (a GPU if there is one), cpu, cuda, cuda:1, ...

    Raises:
        LightsaeError: If it cannot be used.

    Example:
        >>> usable_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise LightsaeError(f"device {name!r} cannot be used: {error}") from error
    return device


def _speed(bar: Progress, task: Any, writer: ShardWriter | None) -> str:
    """Images per second as the bar has measured it, and the bytes written."""
    speed = bar.tasks[task].speed
    written = decimal(writer.bytes_written) if writer is not None else ""
    return f"{speed:.0f} images/s {written}" if speed else written


def copy_numbers(original_index: Array) -> Array:
    """How many earlier items belong to the same sample.

    Args:
        original_index: Int64 `[n]`.

    Returns:
        Int64 `[n]`.

    Example:
        >>> copy_numbers(np.array([5, 7, 5, 5, 7]))
        array([0, 0, 1, 2, 1])
    """
    order = np.argsort(original_index, kind="stable")
    _, starts, counts = np.unique(original_index[order], return_index=True, return_counts=True)
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(len(order)) - np.repeat(starts, counts)
    return numbers
