"""Runs beside a baseline, and seeds of one setting beside each other."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lightsae.activations.shards.folder_lock import check_writable
from lightsae.errors import LightsaeError
from lightsae.evaluation.comparison.compare import compare
from lightsae.evaluation.comparison.evaluated_run import read_evaluated
from lightsae.evaluation.comparison.run_groups import names_beside_sizes, seed_groups
from lightsae.files import write_whole
from lightsae.folder_contents import require_no_other
from lightsae.runs.side_by_side.compared import COMPARISON, Compared
from lightsae.runs.side_by_side.independence import require_own_seeds
from lightsae.runs.side_by_side.run_stability import Rows, stability_of_runs
from lightsae.runs.side_by_side.trained_runs import is_evaluated, read_trained, run_folders
from lightsae.typed_json import plain

_FORMAT, _NAME_LENGTH = 1, 100


def compare_runs(
    folders: Sequence[Path],
    out: Path | None = None,
    *,
    split: Rows = "test",
    rows: int | None = None,
    thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9),
) -> Compared:
    """Compare runs.

    Args:
        folders: Run folders, or sweeps.
        out: Where results are written, or None. Of one setting, stability.json and
            stability.safetensors lie there; of several, each in a folder of its own below.
        split: Rows that stability is measured on.
        rows: At most so many.
        thresholds: tau of the stability.

    Raises:
        LightsaeError: If there is nothing to compare, or runs cannot be compared.
    """
    if out is not None:  # before work is lost
        require_no_other(out, "a comparison")
        check_writable(out)
    found = run_folders(folders)
    runs = [read_trained(folder) for folder in found]
    require_own_seeds(runs)
    groups = seed_groups(runs)
    names = names_beside_sizes([runs[group[0]] for group in groups])
    seeds = {name: [runs[place] for place in group]
             for name, group in zip(names, groups, strict=True) if len(group) > 1}  # fmt: skip
    if len(runs) == 1:
        raise LightsaeError(
            f"compare: {found[0]} is one run, expected a baseline and others, or several seeds"
        )
    result = Compared(out=out)
    if len(groups) > 1 and not any(map(is_evaluated, found)) and seeds:
        result.notes.append(
            "the runs were not evaluated by `lightsae test`: settings are not compared"
        )
    elif len(groups) > 1:
        result.comparisons = compare([read_evaluated(folder) for folder in found])
    for name, group in seeds.items():
        result.stabilities[name] = stability_of_runs(group, split, rows, thresholds)
    if out is not None:
        _write(result, out)
    return result


def _write(result: Compared, out: Path) -> None:
    """The files of a comparison; comparison.json says which stabilities are of it."""
    if len(result.stabilities) == 1:
        result.folders.update(dict.fromkeys(result.stabilities, out))
    else:
        names = _folder_names(list(result.stabilities))
        result.folders.update(
            {name: out / each for name, each in zip(result.stabilities, names, strict=True)}
        )
    for name, stability in result.stabilities.items():
        stability.save(result.folders[name])
    described = {
        "format": _FORMAT,
        "comparisons": [plain(asdict(each)) for each in result.comparisons],
        "stability": [
            {"setting": name, "folder": str(folder.relative_to(out))}
            for name, folder in result.folders.items()
        ],
        "notes": result.notes,
    }
    write_whole(out / COMPARISON, json.dumps(described, indent=1, allow_nan=False) + "\n")


def _folder_names(settings: Sequence[str]) -> list[str]:
    """Settings as names of folders, no two the same.

    Example:
        >>> _folder_names(["L1L2Ratio 0.01, k 8", "L1L2Ratio 0.01 k 8"])
        ['L1L2Ratio-0.01-k-8', 'L1L2Ratio-0.01-k-8-2']
    """
    found: list[str] = []
    for setting in settings:
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", setting)[:_NAME_LENGTH].strip("-.") or "setting"
        same = sum(each.removesuffix(f"-{place}") == name for place, each in enumerate(found, 1))
        found.append(name if not same else f"{name}-{len(found) + 1}")
    return found
