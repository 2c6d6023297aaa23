"""`lightsae import`: an autoencoder of another library as a folder of ours."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.console import Console

from lightsae.files import expanded

_ABOUT = """Read an autoencoder that another library wrote and write it as a folder with
sae.safetensors and sae.json."""


def import_foreign(words: Sequence[str]) -> None:
    """Run `lightsae import`.

    Args:
        words: Words after it.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: If the file cannot be read, or the folder not be written.
    """
    parser = ArgumentParser(prog="lightsae import", description=_ABOUT, exit_on_error=False)
    parser.add_argument("path", type=str, help="The file or folder of the other library.")
    parser.add_argument("out", type=str, help="The folder to make.")
    parser.add_argument("--format", type=str, default="auto", help="docs/interop.md lists them.")
    given = parser.parse_args(list(words))
    # What follows needs torch; the options and their help do not.
    from lightsae.interop.conversion import emptied_on_failure, load_foreign, require_empty
    from lightsae.sae import Transcoder

    out = Path(expanded(given.out))
    require_empty(out)
    sae = load_foreign(expanded(given.path), given.format)
    with emptied_on_failure(out):
        sae.save(out)
    widths = f"d_in {sae.d_in}"
    if isinstance(sae, Transcoder):
        widths = f"transcoder, {widths}, d_out {sae.d_out}"
    rule = f"{type(sae.selection).__name__} k = {sae.selection.k}"
    Console(stderr=True).print(
        f"{out}: {widths}, d_sae {sae.d_sae}, {rule}, {sae.normalization}, "
        f"of {sae.provenance['format']}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    for note in sae.provenance.get("notes", []):
        Console(stderr=True).print(note, markup=False, highlight=False, soft_wrap=True)
