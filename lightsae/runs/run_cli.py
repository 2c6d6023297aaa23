"""fit, validate, test and predict over a run folder."""

from argparse import ArgumentError
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse.typing import PositiveInt, register_type, restricted_number_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Checkpoint,
    LambdaCallback,
    ModelCheckpoint,
    ProgressBar,
    Timer,
)
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from lightsae.activations import ActivationDataModule, OnlineActivationDataModule
from lightsae.error_messages import one_line, raised_in
from lightsae.errors import LightsaeError
from lightsae.evaluation.options import EvaluationOptions
from lightsae.evaluation.result_table import result_table
from lightsae.evaluation.trainer_callback import EvaluationCallback
from lightsae.files import NameOption, expanded
from lightsae.launch_environment import require_processes
from lightsae.runs import exit_messages
from lightsae.runs.code_writer import CodeWriter
from lightsae.runs.log_filter import quieten
from lightsae.runs.metrics_file import MetricsFile, RewindMetrics
from lightsae.runs.model_summary import model_summary
from lightsae.runs.progress_bar import RunProgressBar
from lightsae.runs.resuming.checkpoint_files import AtomicCheckpointIO
from lightsae.runs.resuming.resume_point import ResumePoint, stopped_early
from lightsae.runs.run_folder import RunFolder, exclusive
from lightsae.runs.termination import EndTogether, lost_a_partner
from lightsae.runs.time_limit import TimeLimit, timer_that_ended
from lightsae.runs.trainer_settings import make_plain
from lightsae.training.checkpoints.reading import read_checkpoint
from lightsae.training.module import SAEModule

# Class paths may be short where the class was imported.
_DATA_MODULES = (ActivationDataModule, OnlineActivationDataModule)
# Callbacks such as StochasticWeightAveraging have one among their defaults.
register_type(torch.device, str, torch.device, fail_already_registered=False)
_SEED = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])


class RunCLI(LightningCLI):
    """A LightningCLI whose runs live in a folder and go on where they stopped."""

    run: RunFolder

    def __init__(self, args: list[str]) -> None:
        quieten()
        self._asked = word = args[0]
        self._together = EndTogether()
        self._resume_point: ResumePoint | None = None
        self._resumed_from: int | None = None
        self._given: Path | None = None
        self._evaluation: EvaluationCallback | None = None
        self._trains = False
        super().__init__(
            LightningModule,
            LightningDataModule,
            args=args,
            save_config_callback=None,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults={"num_sanity_val_steps": 0},
            parser_kwargs={
                "prog": "lightsae",
                "exit_on_error": False,
                word: {"exit_on_error": False},
            },
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command that is asked for alone: making a parser takes a while."""
        return {self._asked: super().subcommands()[self._asked]}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, without the base class's warning about calls from Python."""
        assert isinstance(args, list)
        try:
            self.config = parser.parse_args(args)
        except UnicodeDecodeError as error:
            message = f"a file among {' '.join(args[1:])} is not text: {error}"
            raise ArgumentError(None, message) from error
        make_plain(self.config[self._asked].trainer)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The seed, which numpy wants within bounds."""
        parser.add_argument(
            "--seed_everything", type=bool | _SEED, default=self.seed_everything_default, help=""
        )

    def _parse_ckpt_path(self) -> None:
        """Hyper-parameters of a checkpoint never overwrite what the configuration says."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What a run folder needs."""
        parser.add_argument(
            "--run_dir",
            type=NameOption | None,
            default=None,
            help="Folder of the run.",
        )
        parser.add_argument(
            "--checkpoint_every",
            type=PositiveInt,
            default=500,
            help="Optimizer steps between two checkpoints.",
        )
        parser.add_class_arguments(EvaluationOptions, "evaluation")

    def instantiate_classes(self) -> None:
        """Make the objects; what is wrong with one of them becomes one line."""
        try:
            super().instantiate_classes()
        except (ValueError, ImportError, MisconfigurationException) as error:
            raise LightsaeError(one_line(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that logs to, and checkpoints into, the run folder."""
        config = self._get(self.config_init, "trainer")
        folder = self._get(self.config_init, "run_dir")
        folder = config.get("default_root_dir") if folder is None else folder
        self.run = RunFolder(expanded("runs/default" if folder is None else folder))
        plugins = _listed(config.get("plugins"))
        callbacks = _listed(config.get("callbacks"))
        callbacks += self._callbacks(config, callbacks)
        self._require_one_last(callbacks)
        if config.get("max_time") is not None and not any(isinstance(c, Timer) for c in callbacks):
            callbacks.append(TimeLimit(config["max_time"]))
            kwargs["max_time"] = None
        kwargs |= {
            "default_root_dir": self.run.path,
            "plugins": [*plugins, AtomicCheckpointIO()],
            "callbacks": callbacks,
        }
        if config.get("logger") is not False and not config.get("barebones"):
            fitting = self.subcommand == "fit"
            own = MetricsFile(self.run.metrics if fitting else self.run.evaluations)
            given = [] if config.get("logger") is True else _listed(config.get("logger"))
            kwargs["logger"] = [own, *given]
        if not any(isinstance(callback, Checkpoint) for callback in callbacks):
            kwargs["enable_checkpointing"] = False
        if config.get("enable_model_summary") is None:  # it counts no operation of an autoencoder
            kwargs["enable_model_summary"] = False
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (KeyError, RuntimeError) as error:  # a launcher whose environment Lightning misses
            if isinstance(error, RuntimeError) and not raised_in(error, "lightning"):
                raise
            missing = f"{error.args[0]} is not set by the launcher of this process"
            told = missing if isinstance(error, KeyError) else one_line(str(error))
            raise LightsaeError(told) from error
        if getattr(trainer.strategy.launcher, "_start_method", None) == "spawn":
            raise LightsaeError(
                f"trainer.strategy is {config.get('strategy')!r}, which hands a copy of the "
                "trainer to each process: take ddp, which starts this command once for each"
            )
        require_processes(trainer.world_size, trainer.num_devices)
        return trainer

    def _shows_progress(self) -> bool:
        config = self._get(self.config_init, "trainer")
        return config.get("enable_progress_bar") is not False and not config.get("barebones")

    def _callbacks(self, config: Any, given: list[Callback]) -> list[Callback]:
        ours: list[Callback] = [self._together]
        barred = any(isinstance(callback, ProgressBar) for callback in given)
        if self._shows_progress() and not barred:
            ours.append(RunProgressBar())
        if self.subcommand == "fit":
            start = LambdaCallback(on_train_start=lambda *_: self._say_start())
            ours += [RewindMetrics(), start]
            if config.get("enable_checkpointing") is not False and not config.get("barebones"):
                every = self._get(self.config_init, "checkpoint_every")
                self._resume_point = ResumePoint(self.run.checkpoint, every)
                ours.append(self._resume_point)
        if self.subcommand == "predict":
            ours.append(CodeWriter(self.run.codes))
        if self.subcommand == "test":
            options = self._get(self.config_init, "evaluation")
            self._evaluation = EvaluationCallback(self.run.path, options)
            ours.append(self._evaluation)
        return ours

    def _require_one_last(self, callbacks: list[Callback]) -> None:
        """Two callbacks that write, rename and delete one file would spoil it."""
        folder = self.run.checkpoint.parent
        for callback in callbacks:
            if not isinstance(callback, ModelCheckpoint):
                continue
            if not callback.save_last and callback.filename != self.run.checkpoint.stem:
                continue
            if Path(callback.dirpath or folder).resolve() == folder.resolve():
                raise LightsaeError(
                    f"ModelCheckpoint: {self.run.checkpoint} is always kept, leave out save_last "
                    "and the filename 'last', or set another dirpath"
                )

    def _run_subcommand(self, subcommand: str) -> None:
        written = {"fit": self.run.path, "predict": self.run.codes}.get(subcommand)
        written = None if self.trainer.fast_dev_run else written  # type: ignore[attr-defined]
        try:
            with nullcontext() if written is None else exclusive(written):
                super()._run_subcommand(subcommand)
        except SIGTERMException:
            self._end_stopped(143)
        except SystemExit as end:
            if isinstance(end.__context__, KeyboardInterrupt):  # as Lightning answers it
                self._end_stopped(130)
            raise
        except Exception as error:
            if lost_a_partner(error):
                self._end_after_partner()
            if isinstance(error, MisconfigurationException) or raised_in(error, "lightning"):
                raise LightsaeError(one_line(str(error))) from error
            raise

    def _end_stopped(self, status: int) -> NoReturn:
        if self.subcommand == "fit":
            _say(f"{self.run.path}: {self._stopped()}")
        else:
            _say(f"{self.subcommand}: stopped")
        raise SystemExit(status) from None

    def _stopped(self) -> str:
        """Where the run stopped, and where the same command goes on."""
        point = self._resume_point
        kept = None if point is None else point.step
        return exit_messages.stopped(
            self.trainer.global_step,
            kept=self._resumed_from if kept is None else kept,
            resumes=self._given is None,
        )

    def _end_after_partner(self) -> NoReturn:
        partners = self._together.partners
        if partners == "":  # one that this process started has said why
            raise SystemExit(1) from None
        raise LightsaeError(
            partners or "another process of this run failed or was killed"
        ) from None

    def before_fit(self) -> None:
        """Go on from the run's last checkpoint, if there is one."""
        settings = self.config_init["fit"]
        self._given = _given_checkpoint(settings)
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        path = self._given
        if path is None and self.run.checkpoint.exists():
            path = self.run.checkpoint
        content = {} if path is None else read_checkpoint(path)
        self.run.claim(
            self._plain(self.config["fit"]),
            has_digest=bool(content.get("shards", {}).get("digest")),
            complete=self._completed,
        )
        if self._given is None and path is not None:
            settings["ckpt_path"] = str(path)
            self._resumed_from = content["global_step"]

    def _plain(self, settings: Any) -> dict[str, Any]:
        """Settings of fit as plain values."""
        plain: dict[str, Any] = yaml.safe_load(self._parser("fit").dump(settings, format="yaml"))
        return plain

    def _completed(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings of another version with the defaults that this one has."""
        try:
            parsed = self._parser("fit").parse_object(settings)
            make_plain(parsed.trainer)
            return self._plain(parsed)
        except (ArgumentError, ValueError, TypeError, KeyError):  # they are compared as they are
            return settings

    def _say_start(self) -> None:
        self._trains = True
        sizes = f" ({model_summary(self.model.sae)})" if isinstance(self.model, SAEModule) else ""
        if self.trainer.ckpt_path is None:
            why = "no checkpoint yet" if self._resume_point else "keeps no checkpoint"
            _say(f"{self.run.path}: {why}, starting from the beginning{sizes}")
        else:
            _say(f"{self.run.path}: going on after step {self.trainer.global_step}{sizes}")

    def after_fit(self) -> None:
        """Keep the trained autoencoder by itself."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if isinstance(self.model, SAEModule) and self.trainer.is_global_zero:
            self.model.sae.save(self.run.sae)
            _say(f"{self.run.path}: {self._closing()}")

    def _closing(self) -> str:
        """The last line of a run that no signal ended."""
        step, timer = self.trainer.global_step, timer_that_ended(self.trainer)
        if isinstance(timer, TimeLimit):
            return f"time is up: {self._stopped()}"
        if timer is not None:
            return exit_messages.out_of_time(step, trained=self._trains)
        early = stopped_early(self.trainer)
        return exit_messages.finished(step, trained=self._trains, early=early)

    def _before_evaluation(self) -> None:
        settings = self.config_init[str(self.subcommand)]
        path = _given_checkpoint(settings) or self.run.checkpoint
        settings["ckpt_path"] = str(path)
        step = read_checkpoint(path)["global_step"]
        for logger in self.trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.at_step = step
        if self._evaluation is not None:
            self._evaluation.step = step
        _say(f"{self.subcommand}: {path}")

    before_validate = _before_evaluation

    def before_test(self) -> None:
        """Use the run's checkpoint; run the models that embeddings come from."""
        self._before_evaluation()
        if self._evaluation is not None:
            seed = self._get(self.config, "seed_everything")
            self._evaluation.seed = None if isinstance(seed, bool | None) else int(seed)
            self._evaluation.prepare(self.datamodule)

    def after_test(self) -> None:
        """Fit the probes, in one process, and show every figure."""
        evaluation = self._evaluation
        if evaluation is None or not self.trainer.is_global_zero:
            return
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        console = Console(stderr=True, quiet=not self._shows_progress())
        if isinstance(self.model, SAEModule):
            evaluation.fit_probes(self.model, self.datamodule, console)
        for note in evaluation.notes:
            _say(note)
        if evaluation.result is not None:
            Console(soft_wrap=False).print(result_table(evaluation.result))
            _say(f"{self.run.path}: evaluation.json, evaluation.safetensors")

    def before_predict(self) -> None:
        """Use the run's checkpoint; codes go to its folder, not into memory."""
        self._before_evaluation()
        self.config_init["predict"]["return_predictions"] = False


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _given_checkpoint(settings: Any) -> Path | None:
    given = settings.get("ckpt_path")
    if given in ("best", "last", "hpc"):
        raise LightsaeError(
            f"--ckpt_path must be a file, got {given!r}; without it the run's own is used"
        )
    return None if given is None else Path(expanded(given))


@rank_zero_only
def _say(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
