"""`lightsae shards info`: what a folder holds."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from lightsae.activations.format import Manifest
from lightsae.activations.mixing import label_chi_square
from lightsae.activations.norms import norm_quantiles
from lightsae.activations.reader import ShardSet
from lightsae.activations.storage import as_float32

_SAMPLED_CHUNKS = 64
_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


def info(folder: str, buffer_rows: int | None = None, batch_size: int = 256) -> None:
    """Tell what a folder of shards holds, how long its rows are and how well labels are mixed.

    Statistics are those of the manifest, norms to within 2.2%. Mixing is the chi-square of the
    labels of shuffled batches over its degrees of freedom: 1 where rows are drawn at random.

    Args:
        folder: The folder; one that is not complete is told from its manifest alone.
        buffer_rows: Rows that training would hold in memory; 5% of all unless told.
        batch_size: Rows per batch.

    Raises:
        LightsaeError: If it is no folder of shards, or a shard is not what it should be.
    """
    manifest = Manifest.load(folder)
    table = Table(title=escape(str(folder)), show_header=False)
    for name, text in described(Path(folder), manifest):
        table.add_row(name, escape(text))
    if manifest.complete:
        shards = ShardSet(folder, verify=False)
        for name, text in measured(shards, buffer_rows, batch_size):
            table.add_row(name, escape(text))
        shards.close()
    Console().print(table)


def described(folder: Path, manifest: Manifest) -> list[tuple[str, str]]:
    """What the manifest says."""
    files = [folder / entry.name for entry in manifest.shards]
    size = sum(path.stat().st_size for path in files if path.exists())
    labels = f"{len(manifest.classes) or 'unnamed'} classes" if manifest.has_labels else "none"
    found = [
        ("complete", "yes" if manifest.complete else "no: the command that began it goes on"),
        ("model", f"{manifest.model or 'unnamed'} {manifest.weights_hash}"),
        ("layer, tokens", f"{manifest.layer or 'unnamed'}, {manifest.tokens or 'unnamed'}"),
        ("rows", f"{manifest.rows:,} of {manifest.d_in} {manifest.dtype}"),
        ("on disk", f"{decimal(size)} in {len(files)} shards"),
        ("labels", labels),
        ("digest", manifest.digest()),
    ]
    if manifest.rows:
        mean, scale = np.array(manifest.mean), np.array(manifest.scale)
        spread = f"{scale.min():.3g} to {scale.max():.3g}, median {np.median(scale):.3g}"
        found.append(("norm of the mean", f"{np.linalg.norm(mean):.4g}"))
        found.append(("scale by dimension", spread))
        norms = [f"{norm:.3g}" for norm in norm_quantiles(manifest.norms, _QUANTILES)]
        found.append(("norms: least, 5%, median, 95%, most", ", ".join(norms)))
    return found


def measured(shards: ShardSet, buffer_rows: int | None, batch_size: int) -> list[tuple[str, str]]:
    """What some of the rows say."""
    found = [("NaN or infinite", _not_finite(shards))]
    if shards.manifest.has_labels:
        buffer = buffer_rows or max(1, shards.manifest.rows // 20)
        figure = label_chi_square(shards, buffer_rows=buffer, batch_size=batch_size)
        said = f"{figure:.3g} (buffer of {buffer:,} rows, batches of {batch_size})"
        found.append(("mixing of labels, 1 is random", said))
    return found


def _not_finite(shards: ShardSet) -> str:
    """Values of chunks spread over the folder that no writer of ours would have stored."""
    number = len(shards.chunks)
    chunks = np.unique(np.linspace(0, number - 1, min(number, _SAMPLED_CHUNKS)).astype(int))
    manifest, wrong = shards.manifest, 0
    for chunk in chunks.tolist():
        raw = np.empty(int(shards.chunks[chunk, 2]) * shards.row_bytes, np.uint8)
        shards.read_rows(chunk, raw)
        wrong += int((~np.isfinite(as_float32(raw, manifest.dtype, manifest.d_in))).sum())
    rows = int(shards.stored_rows[chunks].sum())
    return f"{wrong} values in {rows:,} rows looked at; none can be written"
