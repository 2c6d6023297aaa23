"""`lightsae plan`: memory, time and traffic of a run on a cluster, before it is sent."""

from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from rich.console import Console

from lightsae.files import NameOption, expanded

if TYPE_CHECKING:
    from lightsae.planning import Plan

_ABOUT = (
    "Estimate what a configuration of fit would need: memory of each device by part, time of a "
    "step, bytes exchanged, and the layout that splits the dictionary least and fits. Other "
    "options are those of fit, such as --model.d_sae. With --calibrate: measure this machine."
)
_OF_FIT = ("--model", "--data", "--trainer", "--seed_everything")


def plan_command(words: Sequence[str]) -> "Plan | None":
    """Run the command.

    Args:
        words: Words after `lightsae plan`.

    Returns:
        The plan, or None where the machine was measured.

    Raises:
        argparse.ArgumentError: If they are wrong, or the configuration is none of fit.
        LightsaeError: If the GPU is not known, nothing tells d_in, a size cannot be, or a file is
            not what it should be.
    """
    parser = _parser()
    own, others = divided(words)
    given = parser.parse_args(own)
    out = None if given.out is None else Path(expanded(given.out))
    if given.calibrate:
        if others or given.config or given.gpu:
            raise ArgumentError(None, "--calibrate measures this machine: it takes --out alone")
        _calibrate(out or Path("calibration.json"))
        return None
    if not given.config or given.gpu is None:
        raise ArgumentError(None, "give --config FIT.yaml and --gpu NAME, or --calibrate")
    # What follows needs torch and Lightning; the options and their help do not.
    from lightsae.planning import load_calibration, make_plan
    from lightsae.planning.devices import device
    from lightsae.runs.log_filter import quieten
    from lightsae.runs.planning.fit_config import fit_settings, planned_shape
    from lightsae.runs.planning.plan_table import plan_table

    quieten()
    if given.gpu.lower() != "cpu":
        device(given.gpu)
    path = None if given.calibration is None else expanded(given.calibration)
    calibration = None if path is None else load_calibration(path)
    configs = [word for each in given.config for word in ("--config", expanded(each))]
    settings = fit_settings([*configs, *others])
    plan = make_plan(
        planned_shape(settings, given.d_in, given.dead_share), given.gpu, nodes=given.nodes,
        per_node=given.gpus_per_node, tokens=given.tokens, calibration=calibration,
        calibrated_by=str(path),
    )  # fmt: skip
    if out is not None:
        plan.save(out)
    Console().print(plan_table(plan))
    return plan


def divided(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words for `plan` itself, and those for fit.

    Example:
        >>> divided(["--gpu", "H200", "--model.d_sae", "64", "--trainer.precision=16-mixed"])
        (['--gpu', 'H200'], ['--model.d_sae', '64', '--trainer.precision=16-mixed'])
    """
    found: tuple[list[str], list[str]] = ([], [])
    of_fit = False
    for word in words:
        if word.startswith("-"):
            of_fit = word.startswith(_OF_FIT)
        found[of_fit].append(word)
    return found


def _calibrate(out: Path) -> None:
    from lightsae.activations.shards.folder_lock import check_writable
    from lightsae.planning import calibrate

    check_writable(out.parent)
    found = calibrate()
    found.save(out)
    ceilings, shares = found.ceilings, found.efficiencies
    product, copy = ceilings["product.float32"], ceilings["copy"]
    Console(stderr=True).print(
        f"{out}: {found.device}, {found.threads} threads: float32 product "
        f"{product * shares['product.float32'] / 1e9:,.0f} GFLOP/s, copy "
        f"{copy * shares['copy'] / 1e9:,.1f} GB/s, passes {found.factor:.2f} times their parts and "
        f"{1e3 * found.overhead:.1f} ms",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="lightsae plan", description=_ABOUT, exit_on_error=False)
    options: dict[str, dict[str, Any]] = {
        "config": {"action": "append", "help": "YAML as for lightsae fit; may be several."},
        "gpu": {"type": str, "help": "A100, H100, H200, B200, or cpu with --calibration."},
        "nodes": {"type": PositiveInt, "default": 1, "help": "Nodes."},
        "gpus_per_node": {"type": PositiveInt, "default": 1, "help": "GPUs of each."},
        "tokens": {
            "type": NonNegativeInt,
            "default": 0,
            "help": "Rows to train on; tells how long it takes.",
        },
        "calibration": {"type": NameOption | None, "help": "File that --calibrate wrote."},
        "d_in": {"type": PositiveInt | None, "help": "Width, where the shards are not there."},
        "dead_share": {
            "type": ClosedUnitInterval,
            "default": 0.05,
            "help": "Latents taken as dead by AuxK.",
        },
        "out": {"type": NameOption | None, "help": "JSON file to write."},
        "calibrate": {"action": "store_true", "help": "Measure this machine, write --out."},
    }
    for name, settings in options.items():
        parser.add_argument(f"--{name}", **settings)
    return parser
