"""An extraction as set up: run the model, write each layer's rows, resume, report progress."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lightsae.activations.extraction.background_writer import WriteBehind
from lightsae.activations.extraction.images.batches import ImageBatch, image_batches
from lightsae.activations.extraction.images.image_set import ImageSet
from lightsae.activations.extraction.layer_folder import LayerFolder, has_manifest, is_complete
from lightsae.activations.extraction.models import LayerOutputs, LayerTap, weights_hash
from lightsae.activations.extraction.option_types import Compute, TokenKind
from lightsae.activations.extraction.rank_part import Part
from lightsae.activations.extraction.token_rows import TokenChoice, TokenRows, on_device
from lightsae.activations.shards.disk_budget import check_room, check_spent
from lightsae.activations.shards.dtypes import StoredDtype, storage
from lightsae.activations.shards.manifest import Manifest
from lightsae.errors import LightsaeError
from lightsae.plural import counted

_TOLD_WARNINGS = 5
LEAST = {
    "batch_size": 1,
    "rows_per_shard": 1,
    "max_bytes": 1,
    "tokens_per_image": 1,
    "workers": 0,
    "seed": 0,
}


def check_numbers(**numbers: int | None) -> None:
    """Refuse numbers that are too small, before a model is loaded for nothing."""
    for name, number in numbers.items():
        if number is not None and number < LEAST[name]:
            raise LightsaeError(f"{name} is {number}, expected at least {LEAST[name]}")


@dataclass
class Extraction:
    """One extraction, as `extract` sets it up; for callers that have their own module and images.

    Attributes:
        tap: The model and the layers.
        images: The images.
        out: Folder of shards, or of such folders if there are several layers.
        model_name: Name of the model for the manifest.
        tokens: Token kind.
        dtype: Stored dtype.
        batch_size: Images per forward pass.
        seed: Seed of the order of images.
        rows_per_shard: A shard ends with the forward pass that brings it to this many rows.
        on_error: "raise" or "skip", for images that cannot be read or stored.
        device: Device of the forward pass, or "auto".
        compute: Dtype of the forward pass.
        workers: Processes that read images.
        preparation: How images are prepared, for the manifest.
        prefix_tokens: Number of class and register tokens, if the model does not say it.
        arguments: What the model was made with, for the manifest.
        show_progress: Show a progress bar and a closing line on standard error.
        max_bytes: Budget of bytes on the disk for all images and layers.
        tokens_per_image: How many tokens of an image become rows at most.
        part: Which part of the images this process visits; its folders are complete with them.
        layout: A letter for each axis of the layers' outputs, see `LayerOutputs`; None to find it.
        origin: Where the images came from, for the manifest; see `origin_settings`.
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
    tokens_per_image: int | None = None
    part: Part = field(default_factory=Part)
    layout: str | None = None
    origin: dict[str, Any] = field(default_factory=dict)

    def run(self) -> list[Manifest]:
        """Begin or continue, and return the manifest of each layer's complete folder."""
        check_numbers(**{name: getattr(self, name) for name in LEAST})
        storage(self.dtype)
        self._console = Console(stderr=True, quiet=not self.show_progress)
        self._warnings = 0
        self._choice = TokenChoice(
            self.tokens, self.prefix_tokens, self.tokens_per_image, self.seed
        )
        for note in getattr(self.images, "notes", []):
            self._say(note)
        model_hash = weights_hash(self.tap.module)
        folders = [self._folder(layer, model_hash) for layer in self.tap.layers]
        for folder in folders:
            if folder.complete:
                rows = folder.manifest.rows
                self._say(f"{folder.out}: already complete, {counted(rows, 'row')}")
        if not all(folder.complete for folder in folders):
            self._write(folders)
        return [folder.manifest for folder in folders]

    def folders(self) -> list[Path]:
        """The folder of each layer, with the rows of all images.

        Raises:
            LightsaeError: If a layer's name cannot be a folder's, or `out` itself has shards.
        """
        layers = self.tap.layers
        if len(layers) == 1:
            return [self.out]
        if has_manifest(self.out):
            raise LightsaeError(f"{self.out}: holds shards, expected a folder for folders of them")
        for layer in layers:
            if Path(layer).name != layer:
                raise LightsaeError(
                    f"layer {layer!r} cannot be the name of a folder: extract it alone"
                )
        return [self.out / layer for layer in layers]

    def _folder(self, layer: str, model_hash: str) -> LayerFolder:
        """The folder of a layer: of this process's part, unless that of all is complete."""
        out = self.folders()[self.tap.layers.index(layer)]
        part = Part() if is_complete(out) else self.part
        wanted = self._wanted(layer, model_hash, part)
        skip = self.on_error == "skip"
        return LayerFolder(part.folder(out), wanted, self.images, self.rows_per_shard, skip)

    def _wanted(self, layer: str, model_hash: str, part: Part) -> Manifest:
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
        settings |= self.origin
        if self.tokens_per_image is not None:
            settings["tokens_per_image"] = self.tokens_per_image
        if self.layout is not None:
            settings["layout"] = self.layout
        if part.world > 1:
            settings["part"] = list(part)
        return Manifest(
            d_in=1,
            dtype=self.dtype,
            model=self.model_name,
            weights_hash=model_hash,
            layer=layer,
            tokens=self.tokens,
            has_labels=self.images.has_labels,
            classes=self.images.classes,
            settings=settings,
        )

    def _write(self, folders: list[LayerFolder]) -> None:
        """Visit the images that are left and write their rows."""
        order = np.random.default_rng(self.seed).permutation(len(self.images))
        order = self.part.of(order, self.batch_size)
        left = [folder for folder in folders if not folder.complete]
        done = min(folder.done for folder in left)
        tap = LayerTap(self.tap.module, [folder.manifest.layer for folder in left])
        device = usable_device(self.device)
        tap.module.to(device)
        outputs = LayerOutputs(tap, self.compute, self.layout)
        # Workers begin before the folders are locked, or the locks would outlive a killed parent.
        batches = image_batches(self.images, order[done:], self.batch_size, self.workers)
        starts, checked = [folder.done for folder in left], False
        try:
            for folder in left:
                folder.open()
            with WriteBehind() as behind, self._bar() as bar:
                task = bar.add_task("extract", total=len(order), completed=done, speed="")
                for batch in batches:
                    self._handle(batch.problems)
                    self._tell_warnings(batch.warnings)
                    # A folder whose shard ended later has these rows already.
                    wanted = [start <= done for start in starts]
                    rows = self._rows(outputs, batch, device, wanted)
                    if not checked and batch.images is not None:
                        for note in outputs.notes:
                            self._say(note)
                        self._check_room(folders, left, rows, batch, len(order))
                        checked = True
                    done = min(done + self.batch_size, len(order))
                    parts = [
                        (folder, part)
                        for folder, part, now in zip(left, rows, wanted, strict=True)
                        if now
                    ]
                    behind.do(partial(self._add, parts, batch, done, folders, len(order)))
                    bar.update(task, completed=done, speed=_speed(bar, task, left))
                behind.wait()
                bar.update(task, speed=_speed(bar, task, left))
            for folder in left:
                folder.finish()
        finally:
            batches.close()
            for folder in left:
                folder.abort()
        if self._warnings > _TOLD_WARNINGS:
            told = f"of which the first {_TOLD_WARNINGS} are told"
            self._say(f"{self._warnings} images were read with warnings, {told}")
        for folder in left:
            self._tell(folder)

    def _add(
        self,
        parts: list[tuple[LayerFolder, TokenRows | None]],
        batch: ImageBatch,
        done: int,
        folders: list[LayerFolder],
        images: int,
    ) -> None:
        """Write the rows of a batch, if the budget allows."""
        self._check_spent(parts, folders, images)
        for folder, rows in parts:
            for problem in folder.add(rows, batch, done):
                self._say(f"skipped: {problem}")

    def _rows(
        self, outputs: LayerOutputs, batch: ImageBatch, device: torch.device, wanted: list[bool]
    ) -> list[TokenRows | None]:
        """Rows of a batch for each layer that wants them."""
        if batch.images is None:
            return [None] * len(wanted)
        inputs = on_device(batch.images, device)
        found = outputs(inputs)
        return [
            self._choice.rows(output, inputs, outputs.tap.module, batch.positions, prefix)
            if want
            else None
            for output, prefix, want in zip(found, outputs.prefix_tokens, wanted, strict=True)
        ]

    def _budget(self, images: int) -> int | None:
        """The share of the budget that is for a number of images."""
        return None if self.max_bytes is None else self.max_bytes * images // len(self.images)

    def _check_room(
        self,
        folders: list[LayerFolder],
        left: list[LayerFolder],
        rows: list[TokenRows | None],
        batch: ImageBatch,
        images: int,
    ) -> None:
        """Compare what all images will take, going by a first batch, with what they may."""
        written = sum(folder.bytes_written for folder in folders)
        whole = sum(folder.bytes_written for folder in folders if folder.complete)
        for folder, part in zip(left, rows, strict=True):
            whole += folder.expected_bytes(part, len(batch.positions), images)
        check_room(self.out, whole, written, self._budget(images), self.part.world)

    def _check_spent(
        self,
        parts: list[tuple[LayerFolder, TokenRows | None]],
        folders: list[LayerFolder],
        images: int,
    ) -> None:
        """Stop before the budget is exceeded."""
        budget = self._budget(images)
        if budget is not None:
            more = sum(folder.bytes_with(rows) - folder.bytes_written for folder, rows in parts)
            there = sum(folder.bytes_written for folder in folders)
            check_spent(self.out, there + more, budget)

    def _handle(self, problems: list[str]) -> None:
        """Stop at the first unreadable image, unless they are to be skipped."""
        if problems and self.on_error == "raise":
            raise LightsaeError(f"{problems[0]} (on_error skip goes on without it)")
        for problem in problems:
            self._say(f"skipped: {problem}")

    def _tell_warnings(self, warnings: Sequence[str]) -> None:
        """What was said of images that could be read: of the first, the others are counted."""
        for warning in warnings[: max(0, _TOLD_WARNINGS - self._warnings)]:
            self._say(warning)
        self._warnings += len(warnings)

    def _tell(self, folder: LayerFolder) -> None:
        """What was written, as the closing line."""
        count, manifest = len(folder.skipped), folder.manifest
        skipped = f", {counted(count, 'image')} skipped (listed in its manifest)" if count else ""
        rows = counted(manifest.rows, "row")
        self._say(f"{folder.out}: {rows} of {manifest.d_in}{skipped}")

    def _say(self, text: str) -> None:
        """A line as it is: names of files are no markup."""
        text = text.replace("\n", "\\n")
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

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


def _speed(bar: Progress, task: Any, folders: list[LayerFolder]) -> str:
    """Images per second as the bar has measured it, and the bytes written, once there are some."""
    speed = bar.tasks[task].speed
    written = sum(folder.bytes_written for folder in folders)
    told = [f"{speed:.0f} images/s"] if speed else []
    return " ".join([*told, decimal(written)] if written else told)
