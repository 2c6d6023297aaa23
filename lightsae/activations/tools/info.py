"""`lightsae shards info`: what a folder holds."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from lightsae.activations.loading.label_mixing import label_chi_square, label_frequencies
from lightsae.activations.shards.manifest import Manifest
from lightsae.activations.shards.norm_histogram import norm_quantiles
from lightsae.activations.shards.reading.shard_set import ShardSet
from lightsae.activations.tools.verify import unnamed_label
from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.plural import counted

_CHECKED = "checked when written; verify checks again"
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
        LightsaeError: If an argument is below 1, it is no folder of shards, or a shard is not what
            it should be.
    """
    for name, value in (("buffer_rows", buffer_rows), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise LightsaeError(f"{name} is {value}, expected at least 1")
    folder = expanded(folder)
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
        ("on disk", f"{decimal(size)} in {counted(len(files), 'shard')}"),
        ("labels", labels),
        ("NaN or infinite", f"0 of {manifest.rows * manifest.d_in:,} values ({_CHECKED})"),
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
    """What some of the labels say, if there are any."""
    manifest = shards.manifest
    if not manifest.has_labels:
        return []
    if problem := unnamed_label(shards.folder, manifest, max(label_frequencies(shards))):
        raise LightsaeError(problem)
    buffer = buffer_rows or max(1, manifest.rows // 20)
    figure = label_chi_square(shards, buffer_rows=buffer, batch_size=batch_size)
    said = f"{figure:.3g} (buffer of {buffer:,} rows, batches of {batch_size})"
    return [("mixing of labels, 1 is random", said)]
