"""`extract`: run a frozen model over images and write its layers' activations to shards."""

from pathlib import Path
from typing import Literal

from lightsae.activations.extraction.images.preparation import DataOptions
from lightsae.activations.extraction.models.options import ModelOptions
from lightsae.activations.extraction.option_types import Compute, TokenKind
from lightsae.activations.shards.dtypes import StoredDtype, storage
from lightsae.activations.shards.folder_lock import check_writable
from lightsae.activations.shards.manifest import Manifest
from lightsae.errors import LightsaeError
from lightsae.files import NameOption, expanded


def extract(
    model: ModelOptions,
    data: DataOptions,
    layer: list[str | int | float] | str | int | float,
    out: NameOption,
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
    tokens_per_image: int | None = None,
    layout: str | None = None,
) -> list[Manifest]:
    """Write a model's activations on a set of images to a folder of shards for each layer.

    Interrupted at any moment, the same command again continues after the last whole shard, and
    the result is the one of an uninterrupted run. Images are visited in a random order. Under
    torchrun each process visits a part of them; the rows and their order are the same.

    Args:
        model: The frozen model.
        data: The images.
        layer: Name of the module whose output is stored, such as blocks.11, or several names in
            brackets, `[blocks.5,blocks.11]`: one pass serves all, each in its own OUT/LAYER.
        out: Folder of shards to make or to finish.
        tokens: class (first token), patch (all but class and register tokens, or each place of a
            feature map), pooled (mean of those) or all.
        dtype: Stored dtype; float16 refuses values above 65504.
        batch_size: Images per forward pass.
        seed: Seed of the order of images.
        rows_per_shard: A shard ends with the forward pass that brings it to this many rows.
        on_error: What to do at an image that cannot be read, or whose values do not fit the
            dtype: raise, or skip and list it.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, ...
        compute: Dtype of the forward pass.
        workers: Processes that read and prepare images; 0 does it in a thread of this one.
        max_bytes: Refuse to begin what would take more on the disk, and stop at it.
        tokens_per_image: Store this many of an image's tokens, drawn at random, instead of all.
        layout: What the axes of the layer's output are, a letter for each: B images, T tokens, H
            and W of a map, C and D features, such as TBD; by default it is found.

    Returns:
        The manifests of the complete folders, one for each layer.

    Raises:
        LightsaeError: If anything given is wrong, or a folder was begun with other settings.
    """
    # What follows needs torch; the options and their help do not.
    from lightsae.activations.extraction.extraction_job import (
        Extraction,
        check_numbers,
        usable_device,
    )
    from lightsae.activations.extraction.image_origin import origin_settings
    from lightsae.activations.extraction.images.image_set import load_images
    from lightsae.activations.extraction.layer_folder import begun_with
    from lightsae.activations.extraction.models import (
        LayerTap,
        check_layout,
        layer_names,
        load_model,
    )
    from lightsae.activations.extraction.multi_process import run_in_processes

    folder = _out_folder(out)
    sizes = {"batch_size": batch_size, "rows_per_shard": rows_per_shard, "max_bytes": max_bytes}
    check_numbers(**sizes, tokens_per_image=tokens_per_image, workers=workers, seed=seed)
    data.check_source()
    if data.folder is not None and not Path(data.folder).is_dir():
        raise LightsaeError(f"data.folder: there is no folder {data.folder}")
    names = layer_names(layer)
    if layout is not None:
        check_layout(layout)
    storage(dtype)
    usable_device(device)
    module = load_model(model)
    tap = LayerTap(module, names)
    folders = [folder] if len(tap.layers) == 1 else [folder / name for name in tap.layers]
    images, preparation = load_images(data, module, begun_with(folders))
    extraction = Extraction(
        tap=tap,
        images=images,
        out=folder,
        model_name=model.title,
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
        tokens_per_image=tokens_per_image,
        layout=layout,
        origin=origin_settings(data),
    )
    return run_in_processes(extraction)


def _out_folder(out: NameOption) -> Path:
    """The folder to write, refused before a model is loaded for nothing."""
    if out == "":
        raise LightsaeError("out is '', expected a folder")
    from lightsae.activations.extraction.layer_folder import has_manifest

    folder = Path(expanded(out))
    if not has_manifest(folder):
        check_writable(folder)
    return folder
