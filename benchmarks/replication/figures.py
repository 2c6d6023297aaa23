"""The two figures of arXiv 2606.27321: rank profile and k-robustness."""

from collections.abc import Mapping
from pathlib import Path

from replication.details import Details
from replication.study import Study, mean_curve


def draw(found: Study, path: Path) -> None:
    """Both figures side by side, means over seeds.

    Args:
        found: A study.
        path: Image file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for variant, by_seed in found.details.items():
        profile = mean_curve(by_seed, "profile")
        left.plot(range(1, len(profile) + 1), profile, label=variant)
        right.plot(_first(by_seed).k, mean_curve(by_seed, "nmse"), marker="o", label=variant)
    for axis in (left, right):
        axis.axvline(found.setting.k, color="grey", linestyle=":", linewidth=1)
    left.set(xlabel="rank", ylabel="mean activation before Top-k", yscale="log")
    right.set(xlabel="k at inference", ylabel="NMSE", xscale="log")
    tried = _first(next(iter(found.details.values()))).k
    right.set_xticks(tried, labels=map(str, tried))
    right.minorticks_off()
    left.legend(frameon=False)
    figure.suptitle(f"{found.pair.name}, trained with k = {found.setting.k} (dotted)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _first(by_seed: Mapping[int, Details]) -> Details:
    return next(iter(by_seed.values()))
