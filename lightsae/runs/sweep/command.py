"""`lightsae sweep`: a grid from a configuration of `fit` and its `sweep:` section."""

from argparse import ArgumentError
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.error_messages import one_line
from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.runs.launch_environment import require_processes
from lightsae.runs.resuming.checkpoint_files import AtomicCheckpointIO
from lightsae.runs.resuming.settings_comparison import changed_settings
from lightsae.runs.run_cli import RunCLI
from lightsae.runs.run_folder import RunFolder, exclusive
from lightsae.runs.sweep.grid import BASELINE, Grid, Point
from lightsae.runs.sweep.settings import SweepSettings
from lightsae.runs.sweep.sweep_file import SweepFile
from lightsae.runs.sweep.sweep_run import SweepRun
from lightsae.training.checkpoints.compatibility import require_same_vocabulary
from lightsae.training.checkpoints.provenance import shards_of
from lightsae.training.checkpoints.saved_settings import described_anchor
from lightsae.training.module import SAEModule
from lightsae.training.regularizer_checks import require_embeddings

_NOT_SWEPT = (
    # what a stack has no single value of, and what would end it before it is done
    "callbacks", "logger", "profiler", "max_time", "fast_dev_run", "overfit_batches", "barebones",
)  # fmt: skip


class SweepCLI(RunCLI):
    """The parser of `fit` with a section more; trains a grid instead of one autoencoder.

    Attributes:
        sweep_file: What came out.
    """

    sweep_file: SweepFile

    def __init__(self, args: list[str]) -> None:
        super().__init__(["fit", *args[1:]])

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options of `fit` and the section."""
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(SweepSettings, "sweep")

    def instantiate_classes(self) -> None:
        """Check the whole grid before anything is trained."""
        config = self.config["fit"]
        self._folder = Path(expanded(config.run_dir or "sweeps/default"))
        _require_swept(config)
        try:
            self._settings = SweepSettings(**vars(config.sweep))
        except LightsaeError as error:
            raise ArgumentError(None, str(error)) from error
        self._fit_settings = {
            name: value
            for name, value in self._plain(config).items()
            if name not in ("sweep", "config", "run_dir")
        }
        self._parsed: dict[str, tuple[Namespace, dict[str, Any]]] = {}
        self._grid = Grid(self._settings, self._fit_settings)
        any_weight = self._grid.beside_baselines(_AnyWeight(self._grid))
        self._require_possible(any_weight if self._settings.find_lambda else self._grid.points())
        self.config_init = Namespace(fit=self._made(self.config["fit"], "data"))
        self.datamodule = self.config_init["fit"].data
        self.make_trainer([])

    def _require_possible(self, points: list[Point]) -> None:
        """Build every autoencoder once, without its tensors where d_in is not given."""
        for point in points:
            try:
                self.module(point)
            except (ArgumentError, LightsaeError, ValueError, TypeError) as error:
                raise LightsaeError(f"sweep, {point.name}: {one_line(str(error))}") from error

    def settings(self, point: Point) -> dict[str, Any]:
        """Settings of `fit` for one autoencoder, with every default, as plain values."""
        return self._parsed_point(point)[1]

    def module(self, point: Point) -> SAEModule:
        """The module of one autoencoder."""
        module = self._made(self._parsed_point(point)[0], "model").model
        if type(module) is not SAEModule:
            raise LightsaeError(f"a sweep trains SAEModule, model is {type(module).__name__}")
        if module.cuda_graph:
            raise LightsaeError("cuda_graph records the step of one autoencoder, leave it out")
        return module

    def _parsed_point(self, point: Point) -> tuple[Namespace, dict[str, Any]]:
        """Settings as they were parsed, and as plain values; made once."""
        if point.name not in self._parsed:
            parsed = self._parser("fit").parse_object(self._grid.configuration(point))
            plain = {name: value for name, value in self._plain(parsed).items() if name != "sweep"}
            self._parsed[point.name] = parsed, plain
        return self._parsed[point.name]

    def _made(self, parsed: Namespace, key: str) -> Namespace:
        """The object of one key alone."""
        try:
            found: Namespace = self._parser("fit").instantiate_classes(
                Namespace({key: parsed[key]})
            )
        except (ValueError, ImportError) as error:
            raise LightsaeError(one_line(str(error))) from error
        return found

    @property
    def checkpoint_every(self) -> int:
        """Steps between two checkpoints."""
        return int(self.config["fit"].checkpoint_every)

    @property
    def shows_progress(self) -> bool:
        """Whether a progress bar is wanted."""
        return self.config["fit"].trainer.get("enable_progress_bar") is not False

    def make_trainer(self, callbacks: list[Callback], share: float = 1.0) -> Trainer:
        """A trainer for a share of the configuration's epochs or steps."""
        settings = {
            **self._parser("fit").instantiate_classes(
                Namespace(trainer=self.config["fit"].trainer.clone())
            ).trainer,
            "default_root_dir": str(self._folder),
            "callbacks": callbacks, "logger": False, "enable_progress_bar": False,
            "enable_model_summary": False, "enable_checkpointing": bool(callbacks),
        }  # fmt: skip
        for name in ("max_epochs", "max_steps"):
            if share < 1 and (settings.get(name) or -1) > 0:
                settings[name] = max(1, round(settings[name] * share))
        settings["plugins"] = [*(settings.get("plugins") or []), AtomicCheckpointIO()]
        trainer = Trainer(**settings)
        require_processes(trainer.world_size, trainer.num_devices)
        if trainer.world_size > 1:
            raise LightsaeError(
                f"a sweep runs in one process, the trainer has {trainer.world_size}: "
                "set trainer.devices to 1"
            )
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        self._console = Console(stderr=True)
        with exclusive(self._folder):
            run = self._claimed()
            try:
                run.run()
            except SIGTERMException:
                self._end_stopped(143)
            except SystemExit as end:
                if isinstance(end.__context__, KeyboardInterrupt):
                    self._end_stopped(130)
                raise
        self.sweep_file = run.file

    def _end_stopped(self, status: int) -> NoReturn:
        self._say("stopped; the same command goes on")
        raise SystemExit(status) from None

    def _say(self, text: str) -> None:
        self._console.print(
            f"{self._folder}: {text}", markup=False, highlight=False, soft_wrap=True
        )

    def _claimed(self) -> SweepRun:
        """The sweep of the folder, begun or to go on with."""
        file = SweepFile(self._folder / "sweep.json")
        settings = self._plain(self.config["fit"])
        claim = RunFolder(self._folder)
        if claim.config.exists() and (file.stages or any(self._folder.glob("groups/*/*.ckpt"))):
            before = claim.settings()
            changed = changed_settings(before, settings, complete=self._completed)
            changed += _changed_length(before, settings)
            if changed:
                raise LightsaeError(
                    f"{self._folder} holds a sweep with other settings: {'; '.join(changed)}; "
                    "choose another --run_dir"
                )
        else:
            claim.claim(settings)
        self._prepare(file)
        return SweepRun(self, self._grid, file, self._folder, self._console)

    def _prepare(self, file: SweepFile) -> None:
        """Make what is missing of the data; it must be what the sweep was begun on and reads."""
        data = self.datamodule
        data.prepare_data()
        data.setup("fit")
        if isinstance(data, SplitDataModule) and data.val_fraction == 0:
            raise LightsaeError("data.init_args.val_fraction is 0: a sweep chooses on that split")
        for variant in self._grid.variants:
            point = Point(*self._grid.settings_of_points()[0], 0, variant.name, 1.0)
            require_embeddings(self.module(point).regularizer, data)
        found = shards_of(data)
        if file.shards and file.shards != found:
            raise LightsaeError(
                f"{file.path}: the sweep was begun on other shards: {file.shards}, now {found}"
            )
        file.shards = found
        self._require_vocabulary(file)

    def _require_vocabulary(self, file: SweepFile) -> None:
        """Read the vocabulary of an anchor; it must be the one the sweep was begun with."""
        setting = self._grid.settings_of_points()[0]
        anchor = self.module(Point(*setting, 0, BASELINE, 0.0)).anchor
        if anchor is None:
            return
        trained_with = {"digest": file.vocabulary}
        file.vocabulary = anchor.read_digest()
        try:
            require_same_vocabulary(trained_with, described_anchor(anchor))
        except LightsaeError as error:
            raise LightsaeError(f"{file.path}: {error}") from error


class _AnyWeight(dict[Any, list[float]]):
    """A weight for every setting and regularizer, to build them with."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(
            {(each, variant.name): [1.0] for each in grid.settings_of_points()
             for variant in grid.variants}
        )  # fmt: skip


def _changed_length(before: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """How long the runs are may change for one run, not for the half of a sweep."""
    was, now = before.get("trainer") or {}, settings["trainer"]
    keys = ("max_epochs", "min_epochs", "max_steps", "min_steps", "log_every_n_steps")
    return [
        f"trainer.{key} was {was.get(key)}, is {now.get(key)}"
        for key in keys
        if was.get(key) != now.get(key)
    ]


def _require_swept(config: Namespace) -> None:
    """Refuse settings that a stack cannot follow."""
    for name in _NOT_SWEPT:
        value = config.trainer.get(name)
        if value not in (None, False, 0, 0.0, []) and not (name == "logger" and value is True):
            raise LightsaeError(f"trainer.{name}: a sweep has none, leave it out")
    if all((config.trainer.get(name) or -1) < 0 for name in ("max_epochs", "max_steps")):
        raise LightsaeError("trainer.max_epochs: a sweep needs an end, set it or max_steps")
    if config.trainer.get("limit_val_batches") == 0:
        raise LightsaeError("trainer.limit_val_batches is 0: a sweep chooses on that split")
    if str(config.trainer.get("precision")) in ("16", "16-mixed"):
        raise LightsaeError("trainer.precision: a sweep has no 16-mixed, take bf16-mixed")
    if config.get("ckpt_path") is not None:
        raise LightsaeError("--ckpt_path: a sweep begins all its autoencoders itself, leave it out")
