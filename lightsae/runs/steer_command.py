"""`lightsae steer`: a steering from a configuration that names its task by class path."""

from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from lightsae.error_messages import one_line
from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.files import NameOption, expanded
from lightsae.interventions.steering.options import SteeringOptions

_ABOUT = (
    "Steer a model by latents over a grid of strengths and numbers of latents, beside controls; "
    "choose a point and test it on held-out samples. The same command again goes on where it "
    "stopped."
)


def steer_command(words: Sequence[str]) -> Path:
    """Run the command.

    Args:
        words: Words after `lightsae steer`.

    Returns:
        The folder, with steering.json.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: What the task or `steer` raises.
        MissingExtraError: If what draws the report is not installed.
    """
    parser = _parser(words)
    try:
        given = parser.parse_args(list(words))
    except UnicodeDecodeError as error:
        message = f"a file among {' '.join(words)} is not text: {error}"
        raise ArgumentError(None, message) from error
    for module in ("jinja2", "matplotlib"):  # before work is lost
        require(module, extra="report")
    from lightsae.interventions.steering import steer
    from lightsae.runs.log_filter import quieten

    quieten()
    plain = yaml.safe_load(parser.dump(given, format="yaml"))
    folder = Path(expanded(given.out))
    try:
        made = parser.instantiate_classes(given)
        options = SteeringOptions(
            **{name: made[name] for name in SteeringOptions.__dataclass_fields__}
        )
    except LightsaeError:
        raise
    except (ValueError, ImportError) as error:
        raise LightsaeError(one_line(str(error))) from error
    steer(made.task, folder, options, about=plain["task"])
    return folder


def _parser(words: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(prog="lightsae steer", description=_ABOUT, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML with these options.")
    parser.add_argument("--out", type=NameOption, required=True, help="Folder of the steering.")
    if {"-h", "--help"} & set(words):
        # The base class needs torch, its help does not.
        parser.add_argument(
            "--task", help="class_path and init_args of a SteeringTask; --task.help CLASS lists "
            "the latter.",
        )  # fmt: skip
    else:
        from lightsae.interventions.steering.task import SteeringTask

        parser.add_subclass_arguments(SteeringTask, "task", required=True)
    parser.add_class_arguments(SteeringOptions)
    return parser
