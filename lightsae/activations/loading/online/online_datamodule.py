"""The data module whose frozen model runs beside the autoencoder."""

import json
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightsae.activations.extraction.extraction_job import usable_device
from lightsae.activations.extraction.images.image_set import ImageSet, load_images
from lightsae.activations.extraction.images.preparation import DataOptions
from lightsae.activations.extraction.models import (
    LayerTap,
    ModelOptions,
    check_layout,
    layer_names,
    load_model,
    weights_hash,
)
from lightsae.activations.extraction.option_types import Compute, TokenKind
from lightsae.activations.loading.online.online_rows import RunningModel, RunningRows, first_rows
from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.activations.loading.splits import Split, SplitRule, split_rule
from lightsae.activations.shards.checked_read import checksum
from lightsae.activations.shards.dtypes import Array, StoredDtype, storage
from lightsae.activations.shards.manifest import Manifest
from lightsae.activations.shards.reading.row_source import RowSource
from lightsae.errors import LightsaeError


class _Opened(NamedTuple):
    """What `setup` makes."""

    model: RunningModel
    images: ImageSet
    token: Array
    manifest: Manifest
    rule: SplitRule
    rows: dict[Split, RunningRows]


class OnlineActivationDataModule(SplitDataModule):
    """Activations of a frozen model that runs beside the autoencoder; nothing is written to disk.

    Splits, order, batches and position are those of `ActivationDataModule`. A chunk is one forward
    pass: the training images in an order drawn from `seed`, `forward_batch_size` at a time, the
    same in every epoch. Chunks are shuffled anew for each epoch, and so are the rows within a half
    of the buffer. While batches are taken from one half, a thread runs the model to fill the other;
    on a GPU in a stream of its own.

    Every training row comes once an epoch, whatever the number of processes. A chunk at the edge
    between two of them is run by both.

    Resumed in the middle of an epoch, exactly the rows that are left come in the same order; the
    half of the buffer that was in use is computed again. Rows are the same bit for bit where
    device, number of threads and libraries are.

    `forward_batch_size` is part of the order and of `digest`: a matrix product may round otherwise
    in a batch of another size. `workers` changes nothing.

    Args:
        model: The frozen model, as for `extract`.
        data: The images, as for `extract`; each must be readable.
        layer: Name of the module whose output is taken, such as blocks.11.
        tokens: class, patch, pooled or all, as for `extract`.
        batch_size: Rows per batch and process.
        val_fraction: Share of the samples held out for validation; 0 fits without validation.
        test_fraction: Share of the samples held out for test; 0 holds out none.
        split_seed: Seed of the division into splits.
        seed: Seed of the order of training rows.
        buffer_rows: Rows held in memory to shuffle among.
        buffer_dtype: Their dtype; batches are float32.
        drop_last: Leave out a partial last training batch.
        forward_batch_size: Images per forward pass of the model.
        device: auto (the trainer's, or else a GPU if there is one), cpu, cuda, cuda:1, ...
        compute: Dtype of the forward pass.
        workers: Processes that read and prepare images; 0 does it in the thread of the model.
        layout: What the axes of the layer's output are, as for `extract`.

    Raises:
        LightsaeError: If a size or seed is out of range. `setup` raises it if the model, the layer
            or the images are not what they should be.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/images.npy"
        >>> np.save(file, np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8))
        >>> vit = ModelOptions(name="test_vit", pretrained=False, arguments={"img_size": 32})
        >>> data = OnlineActivationDataModule(
        ...     vit, DataOptions(arrays=file, size=32), layer="blocks.1", batch_size=16)
        >>> data.setup()
        >>> data.d_in, [len(batch.activations) for batch in data.train_dataloader()]
        (64, [16, 16, 4])
    """

    def __init__(
        self,
        model: ModelOptions,
        data: DataOptions,
        layer: str | int | float,
        tokens: TokenKind = "class",
        batch_size: int = 4096,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        split_seed: int = 0,
        seed: int = 0,
        buffer_rows: int = 131_072,
        buffer_dtype: StoredDtype = "float32",
        drop_last: bool = False,
        forward_batch_size: int = 64,
        device: str = "auto",
        compute: Compute = "float32",
        workers: int = 0,
        layout: str | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            seed=seed,
            buffer_rows=buffer_rows,
            drop_last=drop_last,
        )
        sizes = (("forward_batch_size", forward_batch_size, 1), ("workers", workers, 0))
        for name, value, least in sizes:
            if value < least:
                raise LightsaeError(f"{name} is {value}, expected at least {least}")
        storage(buffer_dtype)
        self.model_options, self.data_options = model, data
        self.layer = layer_names([layer])[0]
        self.tokens, self.buffer_dtype = tokens, buffer_dtype
        self.forward_batch_size, self.device = forward_batch_size, device
        self.compute, self.workers, self.layout = compute, workers, layout
        if layout is not None:
            check_layout(layout)
        self._open: _Opened | None = None

    @property
    def manifest(self) -> Manifest:
        """What a folder of these rows would say of itself, but for shards and statistics."""
        return self._ready().manifest

    @property
    def d_in(self) -> int:
        """Width of a row."""
        return self.manifest.d_in

    @property
    def digest(self) -> str:
        """Hash of the model, the images and all else that the rows depend on."""
        manifest = self.manifest
        described = [manifest.digest(), manifest.rows, manifest.settings]
        return f"{checksum(json.dumps(described, default=str).encode()):016x}"

    def prepare_data(self) -> None:
        """Let one process fetch the weights before the others load them."""
        self._ready()

    def setup(self, stage: str | None = None) -> None:
        """Load the model, run it on the first image and divide the samples.

        Args:
            stage: Lightning's stage; the work is the same for each.

        Raises:
            LightsaeError: If the model, the layer, the tokens or the images are not what they
                should be, or the trainer's precision would change what the model computes.
        """
        self._ready()

    def teardown(self, stage: str | None = None) -> None:
        """Let go of the model.

        Args:
            stage: Lightning's stage; the work is the same for each.
        """
        self._open = None

    @property
    def _name(self) -> str:
        """The images."""
        return self._ready().images.name

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has of this data module; it loads the model when it is asked for rows."""
        return {**super().__getstate__(), "_open": None}

    def _ready(self) -> _Opened:
        """The model and the images, loaded once."""
        if self._open is None:
            self._refuse_precision()
            module = load_model(self.model_options)
            tap = LayerTap(module, self.layer)
            images, preparation = load_images(self.data_options, module)
            for note in getattr(images, "notes", []):
                rank_zero_info(note)
            prefix = self.model_options.prefix_tokens
            device = self._device()
            model = RunningModel(tap, self.tokens, prefix, self.compute, device, self.layout)
            rows, token = first_rows(model, images)
            for note in model.notes:
                rank_zero_warn(note)
            rule = split_rule(
                np.unique(images.original_index),
                val_fraction=self.val_fraction,
                test_fraction=self.test_fraction,
                seed=self.split_seed,
            )
            manifest = self._manifest(images, weights_hash(module), preparation)
            manifest.d_in, manifest.rows = rows.shape[2], len(images) * rows.shape[1]
            self._open = _Opened(model, images, token.numpy(), manifest, rule, {})
        return self._open

    def _refuse_precision(self) -> None:
        """Lightning's -true precisions set torch's default dtype, in every thread, at each step."""
        precision = "32-true" if self.trainer is None else str(self.trainer.precision)
        if precision.endswith("-true") and precision != "32-true":
            raise LightsaeError(
                f"trainer.precision is {precision}: it would change what the frozen model computes "
                "beside a step; expected 32-true, bf16-mixed or 16-mixed"
            )

    def _device(self) -> torch.device:
        """The device asked for; by default the trainer's."""
        if self.device == "auto" and self.trainer is not None:
            return self.trainer.strategy.root_device
        return usable_device(self.device)

    def _manifest(self, images: ImageSet, model_hash: str, preparation: dict[str, Any]) -> Manifest:
        """What the rows are, their width and number unknown as yet."""
        options = self.model_options
        settings = {
            "images": len(images),
            "data": images.fingerprint,
            "preparation": preparation,
            "batch_size": self.forward_batch_size,
            "seed": self.seed,
            "split": [self.split_seed, self.val_fraction, self.test_fraction],
            "compute": self.compute,
            "prefix_tokens": options.prefix_tokens,
            "arguments": options.arguments,
        }
        if self.layout is not None:
            settings["layout"] = self.layout
        return Manifest(
            d_in=1,
            dtype=self.buffer_dtype,
            model=options.title,
            weights_hash=model_hash,
            layer=self.layer,
            tokens=self.tokens,
            has_labels=images.has_labels,
            classes=images.classes,
            complete=True,
            settings=settings,
        )

    def _opened(self, split: Split) -> tuple[RowSource, SplitRule, Array]:
        """The rows of a split alone: no image of another one is run."""
        opened = self._ready()
        if split not in opened.rows:
            opened.rows[split] = RunningRows(
                opened.model,
                opened.images,
                self._positions(opened, split),
                opened.manifest,
                opened.token,
                self.forward_batch_size,
                self.workers,
            )
        rows = opened.rows[split]
        return rows, opened.rule, rows.stored_rows

    def _positions(self, opened: _Opened, split: Split) -> Array:
        """The images of a split: for training in a random order, so that a chunk is mixed."""
        mask = opened.rule.mask(opened.images.original_index, split)
        if split != "train":
            return np.flatnonzero(mask)
        order = np.random.default_rng(self.seed).permutation(len(mask))
        positions: Array = order[mask[order]]
        return positions
