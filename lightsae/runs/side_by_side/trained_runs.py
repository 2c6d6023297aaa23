"""Run folders with a trained autoencoder, evaluated or not; of a sweep its members."""

from collections.abc import Sequence
from pathlib import Path

from lightsae.errors import LightsaeError
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun, read_evaluated
from lightsae.evaluation.result import JSON, EvaluationResult
from lightsae.runs.run_folder import RunFolder, regularizer_of
from lightsae.runs.sweep.sweep_file import GRID, SweepFile
from lightsae.sae import SparseAutoencoder
from lightsae.sae.save_load import SETTINGS, read_settings

_SWEEP = "sweep.json"


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """Run folders; in place of a sweep those of its members that trained to the end.

    Args:
        folders: Of runs, or of sweeps.

    Raises:
        LightsaeError: If a folder is missing, is given twice, or a sweep has no member yet.

    Example:
        >>> run_folders([Path("nowhere")])
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: nowhere: there is no such run folder
    """
    found: list[Path] = []
    for folder in folders:
        for each in _members(folder):
            if any(each.samefile(other) for other in found):
                raise LightsaeError(f"{each} is given twice")
            found.append(each)
    return found


def _members(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LightsaeError(f"{folder}: there is no such run folder")
    if not (folder / _SWEEP).is_file():
        return [folder]
    results = SweepFile(folder / _SWEEP).stages.get(GRID, {}).values()
    trained = [folder / "members" / each.point.name for each in results if each.state == "trained"]
    if not trained:
        raise LightsaeError(f"{folder}: no autoencoder of the sweep is trained to the end")
    return trained


def is_evaluated(folder: Path) -> bool:
    """Whether `lightsae test` wrote its result into a run folder."""
    return (folder / JSON).is_file()


def read_trained(folder: Path) -> EvaluatedRun:
    """A run folder; where it was not evaluated, with a result that has no figures.

    Args:
        folder: With config.yaml and sae/.

    Raises:
        LightsaeError: If it holds no trained autoencoder, or a file is not what it should be.
    """
    if is_evaluated(folder):
        return read_evaluated(folder)
    run = RunFolder(folder)
    settings, sae = run.settings(), read_autoencoder(folder)
    seed = settings.get("seed_everything")
    about = {
        "run_dir": str(folder), "d_in": sae.d_in, "d_sae": sae.d_sae, "k": sae.selection.k,
        "seed": None if isinstance(seed, bool | None) else int(seed),
        "regularizer": regularizer_of(settings),
    }  # fmt: skip
    return EvaluatedRun(folder=folder, result=EvaluationResult(about), config=settings)


def read_autoencoder(folder: Path) -> SparseAutoencoder:
    """The autoencoder of a run, in evaluation mode and without gradients.

    Args:
        folder: The run folder.

    Raises:
        LightsaeError: If there is none, or its files are not what `save` writes.
    """
    run = RunFolder(folder)
    if not run.sae.is_dir():
        raise LightsaeError(f"{folder}: has no folder sae, which `lightsae fit` writes at its end")
    return SparseAutoencoder.load(run.sae).eval().requires_grad_(False)


def autoencoder_hash(folder: Path) -> str:
    """What tells the autoencoder of a run from others, wherever it lies.

    Raises:
        LightsaeError: If there is none.
    """
    found: str = read_settings(RunFolder(folder).sae / SETTINGS)["xxh3"]
    return found
