"""fit, validate, test and predict over a run folder."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from lightsae.errors import LightsaeError
from lightsae.messages import one_line
from lightsae.training.checkpoint import AtomicCheckpointIO, ResumePoint, read_checkpoint
from lightsae.training.codes import CodeWriter
from lightsae.training.metrics_file import MetricsFile, RewindMetrics
from lightsae.training.module import SAEModule
from lightsae.training.quiet import quieten
from lightsae.training.runs import RunFolder, exclusive
from lightsae.training.together import EndTogether, lost_a_partner

_ABOUT = {
    "fit": "Train an autoencoder; the same command again goes on where it stopped.",
    "validate": "Metrics of a trained run on the validation split.",
    "test": "Metrics of a trained run on the test split.",
    "predict": "Write the codes of all rows as HDF5.",
}


class RunCLI(LightningCLI):
    """A LightningCLI whose runs live in a folder and go on where they stopped."""

    run: RunFolder

    def __init__(self, args: list[str]) -> None:
        quieten()
        self._asked = word = args[0]
        about = (
            f"{_ABOUT[word]} `lightsae {word} --model.help SAEModule`, "
            "--data.help ActivationDataModule and --print_config tell more."
        )
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
                word: {"description": about, "exit_on_error": False},
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
            raise LightsaeError(f"a file among {' '.join(args)} is not text: {error}") from error

    def _parse_ckpt_path(self) -> None:
        """Hyper-parameters of a checkpoint never overwrite what the configuration says."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What a run folder needs."""
        parser.add_argument(
            "--run_dir",
            type=Path | None,
            default=None,
            help="Folder of the run; the same command again goes on where it stopped. "
            "Without it, trainer.default_root_dir.",
        )
        parser.add_argument(
            "--checkpoint_every",
            type=int,
            default=500,
            help="Optimizer steps between two checkpoints; one is also written after each epoch.",
        )

    def instantiate_classes(self) -> None:
        """Make the objects; what is wrong with one of them becomes one line."""
        try:
            super().instantiate_classes()
        except (ValueError, ImportError, MisconfigurationException) as error:
            raise LightsaeError(one_line(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that logs to, and checkpoints into, the run folder."""
        config = self._get(self.config_init, "trainer")
        folder = self._get(self.config_init, "run_dir") or config.get("default_root_dir")
        self.run = RunFolder(folder or "runs/default")
        plugins = config.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        callbacks = config.get("callbacks") or []
        kwargs |= {
            "default_root_dir": self.run.path,
            "plugins": [*plugins, AtomicCheckpointIO()],
            "callbacks": [*callbacks, *self._callbacks(config, callbacks)],
        }
        if config.get("logger") in (None, True):
            fitting = self.subcommand == "fit"
            kwargs["logger"] = MetricsFile(self.run.metrics if fitting else self.run.evaluations)
        if not any(isinstance(callback, Checkpoint) for callback in callbacks):
            kwargs["enable_checkpointing"] = False
        return super().instantiate_trainer(**kwargs)

    def _callbacks(self, config: Any, given: list[Callback]) -> list[Callback]:
        ours: list[Callback] = [EndTogether()]
        quiet = config.get("enable_progress_bar") is False
        if not quiet and not any(isinstance(callback, ProgressBar) for callback in given):
            ours.append(RichProgressBar())
        if self.subcommand == "fit":
            every = self._get(self.config_init, "checkpoint_every")
            ours += [RewindMetrics(), ResumePoint(self.run.checkpoint, every)]
        if self.subcommand == "predict":
            ours.append(CodeWriter(self.run.codes))
        return ours

    def _run_subcommand(self, subcommand: str) -> None:
        written = {"fit": self.run.path, "predict": self.run.codes}.get(subcommand)
        written = None if self.trainer.fast_dev_run else written  # type: ignore[attr-defined]
        try:
            with nullcontext() if written is None else exclusive(written):
                super()._run_subcommand(subcommand)
        except MisconfigurationException as error:
            raise LightsaeError(one_line(str(error))) from error
        except RuntimeError as error:
            if not lost_a_partner(error):
                raise
            raise LightsaeError("another process of this run failed; it says why") from error

    def before_fit(self) -> None:
        """Go on from the run's last checkpoint, if there is one."""
        settings = self.config_init["fit"]
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        dumped = self._parser("fit").dump(self.config["fit"], format="yaml")
        self.run.claim(yaml.safe_load(dumped))
        if settings.get("ckpt_path") is not None:
            return
        if self.run.checkpoint.exists():
            settings["ckpt_path"] = str(self.run.checkpoint)
            step = read_checkpoint(self.run.checkpoint)["global_step"]
            _say(f"{self.run.path}: going on after step {step}")
        else:
            _say(f"{self.run.path}: no checkpoint yet, starting from the beginning")

    def after_fit(self) -> None:
        """Keep the trained autoencoder by itself."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if isinstance(self.model, SAEModule) and self.trainer.is_global_zero:
            self.model.sae.save(self.run.sae)
            _say(f"{self.run.path}: finished after step {self.trainer.global_step}")

    def _before_evaluation(self) -> None:
        settings = self.config_init[str(self.subcommand)]
        if settings.get("ckpt_path") is None:
            settings["ckpt_path"] = str(self.run.checkpoint)
        path = Path(settings["ckpt_path"])
        step = read_checkpoint(path)["global_step"]
        if isinstance(self.trainer.logger, MetricsFile):
            self.trainer.logger.at_step = step
        _say(f"{self.subcommand}: {path}")

    before_validate = before_test = _before_evaluation

    def before_predict(self) -> None:
        """Use the run's checkpoint; codes go to its folder, not into memory."""
        self._before_evaluation()
        self.config_init["predict"]["return_predictions"] = False


@rank_zero_only
def _say(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
