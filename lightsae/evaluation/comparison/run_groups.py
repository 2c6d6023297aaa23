"""Runs that are seeds of one setting, and what tells settings apart."""

from collections.abc import Callable, Sequence

from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun

_REGULARIZER = "model.init_args.regularizer"
# Said by other keys, or by the name and lambda of the regularizer.
_SAID = (
    "model.init_args.d_sae", "model.init_args.selection.init_args.k",
    f"{_REGULARIZER}.class_path", f"{_REGULARIZER}.init_args.weight",
)  # fmt: skip


def seed_groups(runs: Sequence[EvaluatedRun]) -> list[list[int]]:
    """Places of the runs that differ in nothing but the seed.

    Two runs of one seed, or of unknown ones, are no seeds of one setting: each has a group.
    """
    groups: list[list[int]] = []
    for place, run in enumerate(runs):
        for group in groups:
            taken = {None, *(runs[other].seed for other in group)}
            alone = runs[group[0]].seed is None
            if not alone and run.seed not in taken and run.variant == runs[group[0]].variant:
                group.append(place)
                break
        else:
            groups.append([place])
    return groups


def names_beside_sizes(runs: Sequence[EvaluatedRun]) -> list[str]:
    """Of each run its regularizer with lambda, d_sae, k and the other settings that differ.

    Example:
        >>> from lightsae.evaluation import EvaluationResult
        >>> about = {"d_sae": 512, "k": 8, "regularizer": {"name": "L1L2Ratio", "weight": 0.01}}
        >>> results = [EvaluationResult(about), EvaluationResult({"d_sae": 512, "k": 8})]
        >>> names_beside_sizes([EvaluatedRun(folder=None, result=each) for each in results])
        ['L1L2Ratio 0.01, d_sae 512, k 8', 'baseline, d_sae 512, k 8']
    """
    others = _names(runs, lambda key: key not in ("d_sae", "k"))
    names = []
    for run, each in zip(runs, others, strict=True):
        regularizer = f"{run.regularizer} {run.weight:g}" if run.weight else run.regularizer
        sizes = f"d_sae {run.result.d_sae}, k {run.result.about.get('k')}"
        names.append(", ".join(filter(None, (regularizer, sizes, each))))
    return names


def setting_names(runs: Sequence[EvaluatedRun]) -> list[str]:
    """Of each run the settings that differ between them, such as "k 8, lr 0.001".

    Those of the regularizer do not count: with the same of all others it has the same baseline.
    """
    return _names(runs, lambda key: not key.startswith(_REGULARIZER))


def regularizer_names(runs: Sequence[EvaluatedRun]) -> list[str]:
    """Of each run its regularizer, with those of its settings that differ, lambda aside."""
    settings = _names(runs, lambda key: key.startswith(_REGULARIZER))
    return [
        ", ".join(filter(None, (run.regularizer, each)))
        for run, each in zip(runs, settings, strict=True)
    ]


def _names(runs: Sequence[EvaluatedRun], counts: Callable[[str], bool]) -> list[str]:
    """Of each run those of some settings that differ."""
    every = [run.settings for run in runs]
    keys = [key for key in sorted(set().union(*every)) if key not in _SAID and counts(key)]
    shown = [key for key in keys if len({each[key] for each in every if key in each}) > 1]
    return [
        ", ".join(_said(key, each[key]) for key in shown if each.get(key) is not None)
        for each in every
    ]


def _said(key: str, value: object) -> str:
    """A setting in a few words.

    Example:
        >>> _said("model.init_args.optimizer.init_args.lr", 0.001)
        'lr 0.001'
        >>> _said("model.init_args.optimizer.class_path", "torch.optim.Adam")
        'optimizer Adam'
    """
    *_, parent, name = ["", *key.split(".")]
    if name == "class_path":
        return f"{parent} {str(value).rpartition('.')[2]}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
