"""`lightsae pool`: the unique latents of several runs as one run, trained on."""

from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from lightsae.files import NameOption, expanded, write_whole
from lightsae.runs.side_by_side.pool_options import PoolOptions

_ABOUT = (
    "Pool the unique latents of runs of one setting, such as seeds, as one autoencoder, and train "
    "it on as the first run was trained. The same command again goes on where it stopped."
)


def pool_command(words: Sequence[str]) -> list[str]:
    """Pool, and say how the pooled autoencoder is trained on.

    Args:
        words: Words after `lightsae pool`.

    Returns:
        The words of a `lightsae fit` that trains it.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: What `pool_runs` raises.
    """
    parser = ArgumentParser(prog="lightsae pool", description=_ABOUT, exit_on_error=False)
    parser.add_argument("runs", type=str, nargs="+", help="Run folders, or the folder of a sweep.")
    parser.add_argument("--out", type=NameOption, required=True, help="Run folder to make.")
    parser.add_argument(
        "--epochs", type=PositiveInt | None, default=None,
        help="Passes over the training split; by default as many as the first run's.",
    )  # fmt: skip
    parser.add_class_arguments(PoolOptions)
    given = parser.parse_args(list(words))
    # What follows needs torch; the options and their help do not.
    from lightsae.runs.log_filter import quieten
    from lightsae.runs.side_by_side.pool_runs import pool_runs

    quieten()
    out = Path(expanded(given.out))
    # Numbers of the parser are of classes of its own, which YAML does not know.
    plain = yaml.safe_load(parser.dump(given, format="yaml"))
    options = PoolOptions(**{each.name: plain.get(each.name) for each in fields(PoolOptions)})
    if options.order not in ("stability", "frequency"):
        raise ArgumentError(None, f"--order is {options.order}, expected stability or frequency")
    runs = [Path(expanded(run)) for run in given.runs]
    settings = pool_runs(runs, out, options, plain.get("epochs"))
    config = out / "start" / "fit.yaml"
    write_whole(config, yaml.safe_dump(settings, sort_keys=False))
    return ["fit", "--config", str(config), "--run_dir", str(out)]
