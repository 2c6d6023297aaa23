"""Options of fit, validate, test and predict, and the objects that they describe."""

from argparse import ArgumentError
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt, register_type, restricted_number_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lightsae.activations import ActivationDataModule, OnlineActivationDataModule
from lightsae.error_messages import one_line
from lightsae.errors import LightsaeError
from lightsae.evaluation.options import EvaluationOptions
from lightsae.files import NameOption
from lightsae.runs.command.trainer_settings import log_to_run_folder, make_plain
from lightsae.training.module import SAEModule

# Class paths may be short where the class was imported.
_SHORT = (ActivationDataModule, OnlineActivationDataModule, SAEModule)
# Callbacks such as StochasticWeightAveraging have one among their defaults.
register_type(torch.device, str, torch.device, fail_already_registered=False)
_SEED = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])


class RunParser(LightningArgumentParser):
    """A parser that gives loggers the run folder before it asks what they require."""

    def validate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> None:
        """Check parsed settings; of all commands or of one."""
        for settings in (namespace, *vars(namespace).values()):
            if isinstance(settings, Namespace) and "trainer" in vars(settings):
                log_to_run_folder(settings)
        super().validate(namespace, *args, **kwargs)


class ParsingCLI(LightningCLI):
    """The options of a command over a run folder."""

    def __init__(self, args: list[str]) -> None:
        self._asked = word = args[0]
        super().__init__(
            LightningModule,
            LightningDataModule,
            args=args,
            save_config_callback=None,
            parser_class=RunParser,
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

    def _parse_ckpt_path(self) -> None:
        """Hyper-parameters of a checkpoint never overwrite what the configuration says."""

    def instantiate_classes(self) -> None:
        """Make the objects; what is wrong with one of them becomes one line."""
        try:
            super().instantiate_classes()
        except (ValueError, ImportError, MisconfigurationException) as error:
            raise LightsaeError(one_line(str(error))) from error

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
