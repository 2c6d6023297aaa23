"""One command line over the whole package: `lightsae`, `python -m lightsae`, `lightning fit`."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from lightsae.cli.config_files import (
    require_unambiguous,
    with_config_of_run,
    with_expanded_configs,
)
from lightsae.cli.interrupts import (
    Terminated,
    answering_sigterm,
    interrupt_in,
    repeating_lost_interrupts,
)
from lightsae.cli.run_help import run_help
from lightsae.error_messages import one_line
from lightsae.errors import LightsaeError
from lightsae.runs.launch_environment import require_whole_launch

_RUNS = {
    "fit": "train an autoencoder on shards: --config FILE --run_dir DIR",
    "validate": "metrics of a trained run on the validation split",
    "test": "every metric of a trained run on the test split: evaluation.json and a table",
    "predict": "write the codes of all rows of a folder of shards as HDF5",
}
_TOOLS = {
    "sweep": "a grid of autoencoders, trained stacked and compared: --config FILE --run_dir DIR",
    "steer": "steer a model by latents beside controls, and test it: --config FILE --out DIR",
    "effects": "what a run's latents do to the classifier that its shards came from: RUN",
    "vocabulary": "words with directions, of concepts or tokens: --concepts FILE --out FILE",
    "name": "what a run's latents are called: RUN --vocabulary FILE, or RUN --labels",
    "plan": "memory, time and traffic of a fit on a cluster: --config FILE --gpu NAME --nodes N",
    "extract": "write a frozen model's activations to HDF5 shards",
    "report": "one HTML page that compares evaluated runs and shows their latents",
    "calibrate": "thresholds at which L0 over a set of shards is k: RUN_OR_FOLDER",
    "compare": "runs beside a baseline, and the stability of seeds: RUN_OR_SWEEP [RUN ...]",
    "pool": "unique latents of several runs as one run, trained on: RUN RUN ... --out DIR",
    "scaling": "how the loss scales with latents, k and operations: SWEEP [SWEEP ...]",
    "export": "write the autoencoder of a checkpoint as a folder, or as another library reads it",
    "import": "read an autoencoder of another library: PATH OUT",
    "push": "put an autoencoder and its card on the Hugging Face Hub: FOLDER_OR_RUN OWNER/NAME",
    "shards": "folders of shards: info, verify, shuffle, merge, split, convert",
    "demo": "digits end to end: extract, sweep, test, report",
}

# What a disk or a folder refuses; other errors of the system are somebody's mistake in code.
_DISK = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE,
    errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.EISDIR, errno.ENOTDIR,
)  # fmt: skip

# Commands that are one process however they are started.
_ALONE = {
    "shards",
    "calibrate",
    "export",
    "import",
    "push",
    "steer",
    "effects",
    "vocabulary",
    "name",
    "scaling",
    "plan",
}

# Commands that go on where they were stopped, and do not say so themselves.
_GO_ON = {"extract", "shards", "demo", "steer"}

# Commands over a run that is there: without --config its own is taken.
_OF_TRAINED = {"validate", "test", "predict"}

# Commands whose options name classes, which may be files of the current folder.
_TAKE_CLASSES = {*_RUNS, "extract", "sweep", "steer", "effects", "pool", "plan"}


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: Words after the program's name; by default those of this process.

    Returns:
        Exit status: 0, or after a one-line error 1; 2 if it is about options or the configuration,
        130 after Ctrl-C. Of fit, validate, test and predict, a signal raises SystemExit with 130 or
        143.

    Example:
        >>> main(["--help"])  # doctest: +ELLIPSIS
        usage: lightsae COMMAND [--help] [options]
        ...
        0
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if words[0] not in _RUNS | _TOOLS:
        known = ", ".join(_RUNS | _TOOLS)
        print(f"lightsae: error: no command {words[0]!r}; there are {known}", file=sys.stderr)
        return 2
    if words[0] in _TAKE_CLASSES:
        _look_in_current_folder()
    if words[0] in (*_RUNS, "sweep") and {"-h", "--help"} & set(words):
        print(run_help(words[0]), end="")
        raise SystemExit(0)
    try:
        with repeating_lost_interrupts():
            if words[0] not in _ALONE:
                require_whole_launch()
            if words[0] in _OF_TRAINED:
                words = with_config_of_run(words)
            words = with_expanded_configs(words)
            require_unambiguous(words)
            _command(words[0])(words)
    except BaseException as error:
        status = _status(words[0], error)
        if status is None:
            raise
        return status
    return 0


def _look_in_current_folder() -> None:
    """Let class paths find files of the current folder (not under `python -P`)."""
    with suppress(FileNotFoundError):  # the folder is gone
        here = os.getcwd()
        if not sys.flags.safe_path and not {here, ""} & set(sys.path):
            # Last: a file there is never taken for an installed package.
            sys.path.append(here)


def _status(word: str, error: BaseException) -> int | None:
    """Tell the user in one line why a command ended; None if that is nothing for the user."""
    stop = interrupt_in(error)
    if isinstance(error, argparse.ArgumentError):
        hint = f"(lightsae {word} --help lists the options)"
        print(f"lightsae {word}: error: {one_line(str(error))} {hint}", file=sys.stderr)
        return 2
    if isinstance(error, (LightsaeError, *_kernel_errors())):
        return _tell(word, " ".join(str(error).split()))
    if isinstance(error, OSError) and error.errno in _DISK and error.filename:
        return _tell(word, f"{error.filename}: {error.strerror}")
    if stop is None or isinstance(error, SystemExit):
        return None
    if os.environ.get("LOCAL_RANK", "0") == "0":
        again = "; the same command goes on" if word in _GO_ON else ""
        print(f"lightsae {word}: stopped{again}", file=sys.stderr)
    return 143 if isinstance(stop, Terminated) else 130


def _tell(word: str, message: str) -> int:
    print(f"lightsae {word}: error: {message}", file=sys.stderr)
    return 1


def _kernel_errors() -> tuple[type[Exception], ...]:
    """What the kernels raise for the user, if they were imported at all."""
    found = getattr(sys.modules.get("lightsae_kernels"), "ArgumentError", None)
    return () if found is None else (found,)


def lightning_main() -> int:
    """The `lightning` script: fit, validate, test and predict are ours, the rest is not.

    Other words go to the command line of lightning-sdk where that package is installed.
    """
    words = sys.argv[1:]
    if words and words[0] in _RUNS:
        return main(words)
    try:
        from lightning_sdk.cli.entrypoint import main_cli
    except ModuleNotFoundError:
        asked = repr(words[0]) if words else "no command"
        print(
            f"lightning: {asked}: here it runs {', '.join(_RUNS)}; see lightsae --help",
            file=sys.stderr,
        )
        return 2
    main_cli()
    return 0


def _command(word: str) -> Callable[[list[str]], object]:
    if word in _RUNS:
        from lightsae.runs.run_cli import RunCLI

        return RunCLI
    own_parser = {
        "shards": _shards, "export": _export, "report": _report, "compare": _compare,
        "sweep": _sweep, "import": _import, "push": _push, "calibrate": _calibrate,
        "steer": _steer, "effects": _effects, "vocabulary": _vocabulary, "name": _name,
        "pool": _pool, "plan": _plan, "scaling": _scaling,
    }  # fmt: skip
    return own_parser.get(word) or partial(_call, word)


def _sweep(words: list[str]) -> None:
    """Train a grid and show what came out."""
    from rich.console import Console

    from lightsae.report.sweep_summary import tell_sweep
    from lightsae.runs.sweep.command import SweepCLI

    tell_sweep(SweepCLI(words).sweep_file, Console())


def _scaling(words: list[str]) -> None:
    """Scaling laws of sweeps, and what they say."""
    from rich.console import Console

    from lightsae.runs.scaling.command import scaling_command

    with answering_sigterm():
        result, out = scaling_command(words[1:])
        from lightsae.report.scaling.show import show_scaling

        show_scaling(result, out, Console())


def _steer(words: list[str]) -> None:
    """Steer and show what came out."""
    from rich.console import Console

    from lightsae.runs.steer_command import steer_command

    with answering_sigterm():
        folder = steer_command(words[1:])
        from lightsae.report.steering_report import write_steering_report

        write_steering_report(folder, Console())


def _effects(words: list[str]) -> None:
    """What latents do."""
    from lightsae.runs.class_effects.command import effects_command

    with answering_sigterm():
        effects_command(words[1:])


def _vocabulary(words: list[str]) -> None:
    """Words with directions."""
    from lightsae.runs.naming.vocabulary_command import vocabulary_command

    with answering_sigterm():
        vocabulary_command(words[1:])


def _name(words: list[str]) -> None:
    """What latents are called."""
    from lightsae.runs.naming.name_command import name_command

    with answering_sigterm():
        name_command(words[1:])


def _plan(words: list[str]) -> None:
    """What a run would need."""
    from lightsae.runs.planning.plan_command import plan_command

    with answering_sigterm():
        plan_command(words[1:])


def _shards(words: list[str]) -> None:
    """A command on folders of shards."""
    from lightsae.activations.tools.shards_cli import shards

    with answering_sigterm():
        shards(words[1:])


def _calibrate(words: list[str]) -> None:
    """The thresholds of an autoencoder."""
    from lightsae.runs.calibrate import calibrate

    with answering_sigterm():
        calibrate(words[1:])


def _export(words: list[str]) -> None:
    """The autoencoder of a checkpoint."""
    from lightsae.runs.export import export

    with answering_sigterm():
        export(words[1:])


def _import(words: list[str]) -> None:
    """An autoencoder of another library."""
    from lightsae.interop.import_command import import_foreign

    with answering_sigterm():
        import_foreign(words[1:])


def _push(words: list[str]) -> None:
    """An autoencoder to the Hub."""
    from lightsae.report.push_command import push

    with answering_sigterm():
        push(words[1:])


def _report(words: list[str]) -> None:
    """The page of some runs."""
    from lightsae.report.command import report

    with answering_sigterm():
        report(words[1:])


def _compare(words: list[str]) -> None:
    """Runs beside a baseline, and seeds beside each other."""
    from rich.console import Console

    from lightsae.runs.side_by_side.compare_command import compare_command

    with answering_sigterm():
        compared = compare_command(words[1:])
        from lightsae.report.stability_report import tell_comparison

        tell_comparison(compared, Console(soft_wrap=False))


def _pool(words: list[str]) -> None:
    """Latents of several runs in one, then as `fit`."""
    from lightsae.runs.side_by_side.pool_command import pool_command

    with answering_sigterm():
        fit = pool_command(words[1:])
    from lightsae.runs.run_cli import RunCLI

    RunCLI(fit)


def _call(word: str, words: list[str]) -> None:
    """Call a function whose arguments are the options."""
    from jsonargparse import auto_cli

    try:
        with answering_sigterm():
            auto_cli(
                _function(word),
                args=words[1:],
                as_positional=False,
                prog=f"lightsae {word}",
                exit_on_error=False,
            )
    except UnicodeDecodeError as error:
        message = f"a file among {' '.join(words[1:])} is not text: {error}"
        raise argparse.ArgumentError(None, message) from error


def _function(word: str) -> Callable[..., object]:
    if word == "extract":
        from lightsae.activations.extraction.extract import extract

        return extract
    from lightsae.demo import demo

    return demo


def _help() -> str:
    rows = [f"  {word:<12}{text}" for word, text in (_RUNS | _TOOLS).items()]
    return "\n".join(
        ["usage: lightsae COMMAND [--help] [options]", "", "commands:", *rows, "",
         "`lightsae COMMAND --help` lists the options of a command."]
    )  # fmt: skip
