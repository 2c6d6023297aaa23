"""fit, validate, test and predict over a run folder."""

from contextlib import nullcontext
from typing import Any, NoReturn

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback, ProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightsae.error_messages import one_line, raised_in
from lightsae.errors import LightsaeError
from lightsae.evaluation.trainer_callback import EvaluationCallback
from lightsae.runs.code_writer import CodeWriter
from lightsae.runs.command.announcements import FitAnnouncements, say
from lightsae.runs.command.evaluation import (
    finish_evaluation,
    given_checkpoint,
    log_at_step_of,
    require_trained_regularizer,
    show_metrics,
)
from lightsae.runs.command.parsing import ParsingCLI
from lightsae.runs.command.trainer import (
    listed,
    naming_what_a_launcher_left_out,
    require_own_processes,
    settings_within,
)
from lightsae.runs.command.trainer_settings import run_folder_of
from lightsae.runs.log_filter import quieten
from lightsae.runs.metrics_file import RewindMetrics
from lightsae.runs.progress_bar import RunProgressBar
from lightsae.runs.resuming.resume_point import ResumePoint
from lightsae.runs.run_folder import RunFolder, exclusive
from lightsae.runs.termination import EndTogether, lost_a_partner
from lightsae.training.checkpoints.reading import read_checkpoint
from lightsae.training.module import SAEModule


class RunCLI(ParsingCLI):
    """A LightningCLI whose runs live in a folder and go on where they stopped."""

    run: RunFolder

    def __init__(self, args: list[str]) -> None:
        quieten()
        self._together = EndTogether()
        self._announcements = FitAnnouncements(None)
        self._evaluation: EvaluationCallback | None = None
        super().__init__(args)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that logs to, and checkpoints into, the run folder."""
        settings = self.config_init[str(self.subcommand)]
        config = settings.trainer
        self.run = RunFolder(run_folder_of(settings))
        callbacks = listed(config.get("callbacks"))
        callbacks += self._callbacks(config, callbacks)
        fitting = self.subcommand == "fit"
        kwargs |= settings_within(self.run, config, callbacks, fitting=fitting)
        with naming_what_a_launcher_left_out():
            trainer = super().instantiate_trainer(**kwargs)
        require_own_processes(trainer, config.get("strategy"))
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
            ours += self._callbacks_of_fit(config)
        if self.subcommand == "predict":
            ours.append(CodeWriter(self.run.codes))
        if self.subcommand == "test":
            options = self._get(self.config_init, "evaluation")
            self._evaluation = EvaluationCallback(self.run.path, options)
            ours.append(self._evaluation)
        return ours

    def _callbacks_of_fit(self, config: Any) -> list[Callback]:
        keeps = config.get("enable_checkpointing") is not False and not config.get("barebones")
        every = self._get(self.config_init, "checkpoint_every")
        point = ResumePoint(self.run.checkpoint, every) if keeps else None
        self._announcements = told = FitAnnouncements(point)
        start = LambdaCallback(
            on_train_start=lambda trainer, module: say(
                f"{self.run.path}: {told.start(trainer, module)}"
            )
        )
        return [RewindMetrics(), start, *([] if point is None else [point])]

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

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """What the trainer's method gets: figures are shown here, not by Lightning."""
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        return kwargs | ({"verbose": False} if "verbose" in kwargs else {})

    def _shows_metrics(self) -> bool:
        return bool(self._get(self.config, "verbose"))

    def _end_stopped(self, status: int) -> NoReturn:
        if self.subcommand == "fit":
            say(f"{self.run.path}: {self._announcements.stopped(self.trainer)}")
        else:
            say(f"{self.subcommand}: stopped")
        raise SystemExit(status) from None

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
        given = self._announcements.given = given_checkpoint(settings)
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        path = given
        if path is None and self.run.checkpoint.exists():
            path = self.run.checkpoint
        content = {} if path is None else read_checkpoint(path)
        self.run.claim(
            self._plain(self.config["fit"]),
            has_digest=bool(content.get("shards", {}).get("digest")),
            complete=self._completed,
        )
        if given is None and path is not None:
            settings["ckpt_path"] = str(path)
            self._announcements.resumed_from = content["global_step"]

    def after_fit(self) -> None:
        """Keep the trained autoencoder by itself."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if isinstance(self.model, SAEModule) and self.trainer.is_global_zero:
            self.model.sae.save(self.run.sae)
            say(f"{self.run.path}: {self._announcements.closing(self.trainer)}")

    def _before_evaluation(self) -> None:
        settings = self.config_init[str(self.subcommand)]
        path = given_checkpoint(settings) or self.run.checkpoint
        settings["ckpt_path"] = str(path)
        log_at_step_of(path, self.trainer, self._evaluation)
        say(f"{self.subcommand}: {path}")

    def before_validate(self) -> None:
        """Use the run's checkpoint."""
        self._before_evaluation()
        self._evaluates_own_weights()

    def after_validate(self) -> None:
        """Show the metrics."""
        if self._shows_metrics():
            show_metrics(self.trainer.callback_metrics)

    def before_test(self) -> None:
        """Use the run's checkpoint; run the models that embeddings come from."""
        self._before_evaluation()
        if self._evaluation is not None:
            self._evaluation.seed = self._seed_of_run()
            self._evaluation.prepare(self.datamodule)

    def _seed_of_run(self) -> int | None:
        """The seed that the tested weights come from: the run's own, if they are its own."""
        own = self._evaluates_own_weights()
        settings = self.run.settings() if own else self.config["test"]
        seed = settings.get("seed_everything")
        return None if isinstance(seed, bool | None) else int(seed)

    def _evaluates_own_weights(self) -> bool:
        """Whether weights are the run's own; its regularizer must then be the one given."""
        given = given_checkpoint(self.config[str(self.subcommand)])
        own = given is None and self.run.config.exists() and isinstance(self.model, SAEModule)
        if own:
            require_trained_regularizer(self.run, self.model.regularizer)
        return own

    def after_test(self) -> None:
        """Fit the probes, in one process, and show every figure."""
        if self._evaluation is None or not self.trainer.is_global_zero:
            return
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            shown = self._shows_progress()
            finish_evaluation(self._evaluation, self.model, self.datamodule, shows_progress=shown)
        if self._shows_metrics():
            show_metrics(self.trainer.callback_metrics, self._evaluation.result)

    def before_predict(self) -> None:
        """Use the run's checkpoint; codes go to its folder, not into memory."""
        self._before_evaluation()
        self.config_init["predict"]["return_predictions"] = False
