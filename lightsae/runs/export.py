"""`lightsae export`: an autoencoder as a folder of its own, or as another library reads it."""

from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from rich.console import Console

from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.folder_contents import require_no_other

if TYPE_CHECKING:
    from lightsae.sae import SparseAutoencoder

_ABOUT = """Write the autoencoder of a checkpoint as a folder with sae.safetensors and sae.json; or
with --format that of a checkpoint or of such a folder as another library reads it."""


def export(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Words after `lightsae export`.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: What `export_checkpoint` raises.
    """
    parser = ArgumentParser(prog="lightsae export", description=_ABOUT, exit_on_error=False)
    parser.add_argument(
        "checkpoint",
        type=str,
        help="A checkpoint of fit or of Lightning; with --format also a folder.",
    )
    parser.add_argument("out", type=str, nargs="?", help="The folder to make.")
    parser.add_argument("--out", type=str, dest="out_option", help="The same.")
    parser.add_argument(
        "--format", type=str, help="Of another library: docs/interop.md lists them."
    )
    parser.add_argument(
        "--fold", action="store_true",
        help="With --format: subtract b_dec by b_enc, which every library understands.",
    )  # fmt: skip
    given = parser.parse_args(list(words))
    if (given.out is None) == (given.out_option is None):
        raise ArgumentError(None, "give the folder to make once: as second word or by --out")
    if given.fold and given.format is None:
        raise ArgumentError(None, "--fold needs --format")
    path = Path(expanded(given.checkpoint))
    out = Path(expanded(given.out if given.out_option is None else given.out_option))
    if given.format is None:
        export_checkpoint(path, out)
    else:
        export_to_format(path, out, given.format, fold=given.fold)


def export_checkpoint(path: Path, out: Path) -> None:
    """Write `out` with the autoencoder of a checkpoint, which `SparseAutoencoder.load` reads.

    Args:
        path: The checkpoint; one that does not say its selection rule needs `config.yaml` of its
            run folder beside it.
        out: The folder.

    Raises:
        LightsaeError: If the checkpoint cannot be read or has no autoencoder, or `out` has one,
            holds shards or a run, or cannot be written.
    """
    # What follows needs torch and Lightning; the options and their help do not.
    from lightsae.training.checkpoints.reading import read_checkpoint
    from lightsae.training.checkpoints.saved_settings import saved_autoencoder

    require_free(out)
    content = read_checkpoint(path)
    sae = saved_autoencoder(content, path)
    sae.save(out)
    _tell(out, sae, f"{sae.normalization}, of step {content['global_step']}")


def require_free(out: Path) -> None:
    """Refuse a folder that an autoencoder cannot be written into.

    Raises:
        LightsaeError: If it has one, or holds shards or a run.
    """
    from lightsae.sae import save_load

    if any((out / name).exists() for name in (save_load.TENSORS, save_load.SETTINGS)):
        raise LightsaeError(f"{out}: holds an autoencoder already: choose another --out")
    require_no_other(out, "an autoencoder")


def export_to_format(path: Path, out: Path, format: str, *, fold: bool = False) -> None:
    """Write `out` as another library reads it.

    Args:
        path: A checkpoint, or a folder of `SparseAutoencoder.save`.
        out: The folder to make; empty if it is there.
        format: One of `lightsae.interop.FORMATS`.
        fold: As in `lightsae.interop.export_foreign`.

    Raises:
        LightsaeError: If the autoencoder cannot be read, or the format not hold it.
    """
    from lightsae.interop import export_foreign
    from lightsae.interop.registry import format_named
    from lightsae.sae import SparseAutoencoder
    from lightsae.training.checkpoints.reading import read_checkpoint
    from lightsae.training.checkpoints.saved_settings import saved_autoencoder

    format_named(format)
    if path.is_dir():
        sae = SparseAutoencoder.from_pretrained(path)
    else:
        sae = saved_autoencoder(read_checkpoint(path), path)
    export_foreign(sae, out, format, fold=fold)
    _tell(out, sae, f"as {format} reads it")


def _tell(out: Path, sae: "SparseAutoencoder", more: str) -> None:
    rule = f"{type(sae.selection).__name__} k = {sae.selection.k}"
    d_out = f", d_out {sae.d_out}" if sae.d_out != sae.d_in else ""
    Console(stderr=True).print(
        f"{out}: d_in {sae.d_in}{d_out}, d_sae {sae.d_sae}, {rule}, {more}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
