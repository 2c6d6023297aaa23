"""`lightsae export`: the folder of an autoencoder from any checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.console import Console

from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.folder_contents import require_no_other

_ABOUT = "Write the autoencoder of a checkpoint as a folder with sae.safetensors and sae.json."


def export(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Words after `lightsae export`.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: What `export_checkpoint` raises.
    """
    parser = ArgumentParser(prog="lightsae export", description=_ABOUT, exit_on_error=False)
    parser.add_argument("checkpoint", type=str, help="A checkpoint of fit or of Lightning.")
    parser.add_argument("--out", type=str, required=True, help="The folder to make.")
    given = parser.parse_args(list(words))
    export_checkpoint(Path(expanded(given.checkpoint)), Path(expanded(given.out)))


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
    from lightsae.sae import Transcoder, save_load
    from lightsae.training.checkpoints.reading import read_checkpoint
    from lightsae.training.checkpoints.saved_settings import saved_autoencoder

    if any((out / name).exists() for name in (save_load.TENSORS, save_load.SETTINGS)):
        raise LightsaeError(f"{out}: holds an autoencoder already: choose another --out")
    require_no_other(out, "an autoencoder")
    content = read_checkpoint(path)
    sae = saved_autoencoder(content, path)
    sae.save(out)
    rule = f"{type(sae.selection).__name__} k = {sae.selection.k}"
    d_out = f", d_out {sae.d_out}" if isinstance(sae, Transcoder) else ""
    Console(stderr=True).print(
        f"{out}: d_in {sae.d_in}{d_out}, d_sae {sae.d_sae}, {rule}, {sae.normalization}, "
        f"of step {content['global_step']}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
