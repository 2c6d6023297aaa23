"""`lightsae calibrate`: thresholds with which L0 over a set of shards is k."""

from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser
from rich.console import Console

from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.runs.export import require_free

if TYPE_CHECKING:
    from lightsae.activations import ActivationDataModule
    from lightsae.activations.loading.splits import Split
    from lightsae.sae import SparseAutoencoder

_ABOUT = """Set the threshold of a BatchTopK, or scale those of a JumpReLU, so that on average
exactly k latents of a row are active: over the training rows of a run, or over all rows of --data.
"""
_THRESHOLD = "sae.selection.threshold"
# Of settings of a run's data module, those that decide which rows are for training.
_SPLITTING = ("val_fraction", "test_fraction", "split_seed")
_PASSES = 3


def calibrate(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Words after `lightsae calibrate`.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: If the autoencoder or the shards cannot be read, the rule has no threshold,
            or the result cannot be written.
    """
    parser = ArgumentParser(prog="lightsae calibrate", description=_ABOUT, exit_on_error=False)
    parser.add_argument(
        "path", type=str, help="A run folder, or a folder with sae.json and sae.safetensors."
    )
    parser.add_argument(
        "--data", type=str, help="Folder of shards; by default the training rows of the run."
    )
    parser.add_argument("--out", type=str, help="The folder to make.")
    parser.add_argument(
        "--in_place", action="store_true",
        help="Change the autoencoder where it is; of a run also in its checkpoint.",
    )  # fmt: skip
    given = parser.parse_args(list(words))
    if (given.out is None) != given.in_place:
        raise ArgumentError(None, "say where the result goes once: --out FOLDER or --in_place")
    path = Path(expanded(given.path))
    out = None if given.out is None else Path(expanded(given.out))
    shards = None if given.data is None else expanded(given.data)
    # What follows needs torch and Lightning; the options and their help do not.
    from lightsae.runs.log_filter import quieten
    from lightsae.runs.run_folder import RunFolder, exclusive

    quieten()
    run = RunFolder(path)
    if out is not None:
        require_free(out)
    with nullcontext() if out is not None or not path.is_dir() else exclusive(path):
        if run.checkpoint.is_file():
            _calibrate_run(run, shards, out)
        else:
            _calibrate_folder(path, shards, out)


def _calibrate_folder(path: Path, shards: str | None, out: Path | None) -> None:
    """An autoencoder by itself."""
    from lightsae.activations import ActivationDataModule
    from lightsae.sae import SparseAutoencoder

    sae = SparseAutoencoder.load(path)
    if shards is None:
        raise LightsaeError(f"{path} is no run folder: --data must name a folder of shards")
    data = ActivationDataModule(shards, val_fraction=0.0, test_fraction=0.0)
    _calibrate(sae, data, "all", out or path)
    sae.save(out or path)


def _calibrate_run(run: Any, shards: str | None, out: Path | None) -> None:
    """That of a run's checkpoint, which validate, test and predict read."""
    from lightsae.activations import ActivationDataModule
    from lightsae.runs.resuming.checkpoint_files import AtomicCheckpointIO
    from lightsae.training.checkpoints.provenance import require_same_source, shards_of
    from lightsae.training.checkpoints.reading import read_checkpoint
    from lightsae.training.checkpoints.saved_settings import saved_autoencoder

    content = read_checkpoint(run.checkpoint)
    sae = saved_autoencoder(content, run.checkpoint)
    split: Split = "all"
    if shards is None:
        data, split = _data_of(run), "train"
    else:
        data = ActivationDataModule(shards, val_fraction=0.0, test_fraction=0.0)
    data.setup()
    try:
        require_same_source(content.get("shards", {}), shards_of(data))
    except LightsaeError as error:
        raise LightsaeError(f"{data.path}: {run.checkpoint} was trained on {error}") from error
    _calibrate(sae, data, split, out or run.path)
    sae.save(out or run.sae)
    if out is None:
        content["state_dict"][_THRESHOLD] = sae.state_dict()["selection.threshold"]
        AtomicCheckpointIO().save_checkpoint(content, run.checkpoint)


def _data_of(run: Any) -> "ActivationDataModule":
    """The shards of a run, divided as in it."""
    from lightsae.activations import ActivationDataModule

    data = run.settings().get("data") or {}
    given = data.get("init_args") or {}
    if str(data.get("class_path")).rpartition(".")[2] != "ActivationDataModule":
        raise LightsaeError(f"{run.config} names no shards: --data must name a folder of them")
    kept = {name: given[name] for name in _SPLITTING if name in given}
    return ActivationDataModule(given["path"], **kept)


def _calibrate(
    sae: "SparseAutoencoder", data: "ActivationDataModule", split: "Split", told: Path
) -> None:
    """Calibrate under a progress bar and say what came out; weights end on the CPU."""
    import torch
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from lightsae.evaluation.calibration import calibrate_

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    sae.to("cuda" if torch.cuda.is_available() else "cpu")
    shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        loader = data.split_dataloader(split)
        task = bar.add_task("calibrate", total=_PASSES * len(loader))

        def batches() -> Iterator[Any]:
            for batch in data.split_dataloader(split):
                yield batch
                bar.advance(task)

        found = calibrate_(sae, batches)
    data.teardown()
    sae.to("cpu")
    before = "no threshold" if found.before is None else f"L0 {found.before:.4g}"
    rule = f"{type(sae.selection).__name__} k = {sae.selection.k}"
    console.print(
        f"{told}: {rule}: {before} before, L0 {found.after:.4g} with threshold "
        f"{found.threshold:.4g}, over {found.rows:,} rows",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
