"""Training several autoencoders of one shape under one trainer, each as in a run of its own."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from lightsae_kernels import ArgumentError, Encoded, raise_if_flagged
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from lightsae.activations import ActivationBatch
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.sae import CodeRegularizer, Objective, Regularizer, objective
from lightsae.training.checkpoints.compatibility import require_same_vocabulary
from lightsae.training.checkpoints.provenance import require_same_shards, shards_of
from lightsae.training.checkpoints.saved_settings import (
    anchored_of,
    described_anchor,
    plain_anchored,
)
from lightsae.training.cuda_graph import detached
from lightsae.training.dead_latents import tell_dead_after, warn_if_never_dead
from lightsae.training.evaluation_metrics import RowMean
from lightsae.training.module import SAEModule
from lightsae.training.module_parts.throughput import Throughput
from lightsae.training.optimizer import SAEAdam
from lightsae.training.regularizer_checks import (
    require_embeddings,
    warn_if_never_anchored,
    warn_if_never_risen,
)
from lightsae.training.run_length import is_trial, rows_of_run, steps_of_run
from lightsae.training.schedule import fit_to_run
from lightsae.training.stacked.joint_gradients import JointGradients, can_join
from lightsae.training.stacked.member import Member
from lightsae.training.stacked.optimizer import StackedOptimizer, StackedSchedule, step_stack
from lightsae.training.stacked.parameters import ParameterStack
from lightsae.training.stacked.penalty_gradient import has_joint_gradient
from lightsae.training.starting_point import (
    require_same_start,
    require_started,
    start_from,
    start_of_checkpoint,
)
from lightsae.training.untrained_check import is_untrained

# What batched products take from the first member.
_OF_ALL = ("aux_k", "normalization", "centre", "init_rows", "transcoder")


class StackedModule(LightningModule):
    """Trains several autoencoders over the same batches of one read of the data.

    d_in, d_sae, k, AuxK, normalization, centre, transcoder and the kind of optimizer are those of
    all; regularizer, anchor, learning rate and initial weights are each member's own. A member ends
    as a run of its own with the same data would, to rounding. Batched products train them where
    there is a Top-k on the CPU in one precision, no transcoder and no anchor; in every other case
    they take turns at each batch, through autograd.

    A member whose loss or weights are no longer finite, or whose own code raises an error, is
    marked as failed and left as it was; the others go on.

    Args:
        members: At least one; any order.
        probes: Regularizers by name, whose penalty `validate` measures of every member besides, as
            `penalty/NAME`.

    Attributes:
        members: All members in the order they were given, those that failed too.

    Raises:
        LightsaeError: If there is none, or what is that of all differs.

    Example:
        >>> from lightsae.training import SAEModule
        >>> make = lambda: SAEModule(d_sae=64)
        >>> stacked = StackedModule([Member.made(f"seed {n}", n, make) for n in range(3)])
        >>> [member.name for member in stacked.active]
        ['seed 0', 'seed 1', 'seed 2']
    """

    def __init__(
        self, members: Sequence[Member], probes: Mapping[str, Regularizer] | None = None
    ) -> None:
        super().__init__()
        shapes = {(m.module.d_sae, m.module.selection.k) for m in members}
        if len(shapes) != 1:
            raise LightsaeError(f"members of a stack have one d_sae and k, got {sorted(shapes)}")
        for name in _OF_ALL:
            told = [getattr(member.module, name) for member in members]
            if any(each != told[0] for each in told):
                found = ", ".join(dict.fromkeys(map(str, told)))
                raise LightsaeError(f"members of a stack have one {name}, got {found}")
        self.members = list(members)
        self.trained = nn.ModuleList(member.module for member in members)
        self._order = sorted(members, key=lambda member: _rank(member.module))
        self._probes = dict(probes or {})
        self._probed: dict[str, dict[str, RowMean]] = {}
        self._optimizers: dict[str, Optimizer] = {}
        self._stack: ParameterStack | None = None
        self._stacked_moments = False
        self._throughput = Throughput()
        self._began = False
        self._shards: dict[str, str] = {}

    @property
    def active(self) -> list[Member]:
        """Members that have not failed, in the order of the stack."""
        return [member for member in self._order if member.failure is None]

    def setup(self, stage: str) -> None:
        """Compare the data with what regularizers read, probes too."""
        data = getattr(self.trainer, "datamodule", None)
        for regularizer in (*(m.module.regularizer for m in self.members), *self._probes.values()):
            require_embeddings(regularizer, data)

    def configure_model(self) -> None:
        """Build every member as its own run would; the sample of the data is read once."""
        self._shards = shards_of(getattr(self.trainer, "datamodule", None))
        for member in self.members:
            member.module.trainer = self.trainer
        first, *others = self.members
        with first.drawing():
            first.module.configure_model()
        for member in others:
            with member.drawing():
                _build_like(first.module, member.module)
            if self.trainer.training:
                member.module.require_anchor()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Every member's own, as one."""
        found = [member.module.configure_optimizers() for member in self.members]
        parts: list[Any] = [each if isinstance(each, dict) else {"optimizer": each}
                            for each in found]  # fmt: skip
        optimizer = StackedOptimizer([each["optimizer"] for each in parts])
        names = [member.name for member in self.members]
        self._optimizers = dict(zip(names, optimizer.members, strict=True))
        if "lr_scheduler" not in parts[0]:
            return optimizer
        schedule = StackedSchedule([p["lr_scheduler"]["scheduler"] for p in parts], optimizer)
        configuration: Any = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": configuration}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedules of all members."""
        scheduler.step()

    def on_train_start(self) -> None:
        """Stack what was loaded or made, and bring logs back to where training goes on."""
        for member in self.members:
            require_started(member.module.start_from, member.module.sae)
        steps, trial = steps_of_run(self.trainer), is_trial(self.trainer)
        for config in self.trainer.lr_scheduler_configs:
            for schedule in config.scheduler.members:  # type: ignore[union-attr]
                fit_to_run(schedule, steps, trial)
        for member in self.active if not trial else []:
            warn_if_never_risen(member.module.regularizer, steps)
            warn_if_never_risen(member.module.anchor, steps)
            warn_if_never_anchored(member.module.anchor, steps)
        self._began = trial
        for member in self.members:
            if member.log is not None:
                member.log.rewind(self.trainer.global_step)
        active = self.active
        self._stack = ParameterStack([member.module for member in active])
        clipped = bool(self.trainer.gradient_clip_val)
        self._stacked_moments = (
            not clipped and bool(active) and self._stack.stack_moments(self._own_optimizers())
        )
        self.trainer.should_stop |= not active

    def _own_optimizers(self) -> list[Any]:
        return [self._optimizers[member.name] for member in self.active]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Compare the first batch with what AuxK waits for."""
        first = self.members[0].module
        if not self._began:
            tell_dead_after(first.aux_k, first.d_sae, first.selection.k)
        if not self._began and first.aux_k is not None:
            rows = rows_of_run(self.trainer, len(first.taken(batch).activations))
            since = first.dead_latents.tokens_since_fired
            warn_if_never_dead(since, first.dead_after, rows)
        self._began = True

    @torch.no_grad()
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Gradients of all members, and the mean of their losses."""
        stack, active = self._stack, self.active
        assert stack is not None
        if not active:
            return torch.zeros((), device=self.device)
        taken = active[0].module.taken(batch)
        objectives, errors = self._gradients(stack, taken)
        losses = torch.stack([parts.loss for parts in objectives])
        self._drop(self._failures(stack, losses, errors, taken))
        gone = [member.failure is not None for member in active]
        pairs = [pair for pair, out in zip(zip(active, objectives, strict=True), gone, strict=True)
                 if not out]  # fmt: skip
        self._log_training(pairs, taken)
        return losses[~torch.tensor(gone, device=losses.device)].mean()

    def _gradients(
        self, stack: ParameterStack, batch: ActivationBatch
    ) -> tuple[list[Objective], dict[int, str]]:
        """Add the gradients of every member to the stack's; tells which raised an error, and it."""
        first = stack.modules[0]
        x = first.sae.normalize(batch.activations).x
        scale = 1.0 / self.trainer.accumulate_grad_batches
        joint = sum(1 for _ in takewhile(lambda module: can_join(module, x), stack.modules))
        objectives = JointGradients(stack, first.aux_k).add(x, joint, scale)
        errors: dict[int, str] = {}
        for place, module in enumerate(stack.modules[joint:], start=joint):
            try:
                with torch.enable_grad():
                    parts = module.objective_of(batch)
                    (parts.loss * scale).backward()
                objectives.append(detached(parts))
            except Exception as error:  # of this member alone
                errors[place] = reason(error)
                objectives.append(_nothing(module, x))
        return objectives, errors

    def _failures(
        self, stack: ParameterStack, losses: Tensor, errors: dict[int, str], batch: ActivationBatch
    ) -> dict[Member, str]:
        """Members that raised an error, and those whose loss or weights are not finite."""
        active, found = self.active, dict(errors)
        sums = [value.flatten(1).sum(dim=1) for value in stack.values.values()]
        finite = torch.stack([losses.to(sums[0].dtype), *sums]).isfinite().all(dim=0)
        for place in [] if bool(finite.all()) else (~finite).nonzero().squeeze(1).tolist():
            text = _diagnosis(active[place], batch, losses[place])
            if text is not None:
                found.setdefault(place, text)
        return {active[place]: text for place, text in found.items()}

    def _drop(self, failures: dict[Member, str]) -> None:
        """Go on without those that failed."""
        if not failures:
            return
        before = self.active
        for member, text in failures.items():
            member.failed_at, member.failure = self.trainer.global_step + 1, text
        if self._stack is not None:
            kept = [place for place, member in enumerate(before) if member.failure is None]
            self._stack.keep(kept)
        self.trainer.should_stop |= not self.active

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The gradients are there already."""

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """They are forgotten after the step that uses them."""

    def on_validation_model_zero_grad(self) -> None:
        """Gradients stay where they are: in the stack, as zeros."""

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Gradients of the last batch of the step, then the step of every member."""
        optimizer_closure()
        stack = self._stack
        assert stack is not None
        with torch.no_grad():
            if not stack.modules:
                return
            if self._stacked_moments:
                own: list[SAEAdam] = self._own_optimizers()
                step_stack(stack, own)
            else:
                self._step_in_turn()
            stack.zero_gradients()

    def _step_in_turn(self) -> None:
        """As each member's module does."""
        clip = self.trainer.gradient_clip_val, self.trainer.gradient_clip_algorithm
        for member, optimizer in zip(self.active, self._own_optimizers(), strict=True):
            member.module.on_before_optimizer_step(optimizer)
            member.module.configure_gradient_clipping(optimizer, *clip)
            optimizer.step()
            member.module.normalize_after_step()

    def on_train_epoch_start(self) -> None:
        """Start the throughput clock anew."""
        self._throughput.stop()

    def on_train_epoch_end(self) -> None:
        """Raise for NaN and inf that a GPU has met since."""
        raise_if_flagged()

    def _log_training(
        self, pairs: Sequence[tuple[Member, Objective]], batch: ActivationBatch
    ) -> None:
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or (self.trainer.global_step + 1) % every != 0:
            return
        if self.trainer.fit_loop._should_accumulate():
            return
        rows = len(batch.activations) * self.trainer.accumulate_grad_batches
        rate = self._throughput.per_second(self.trainer.global_step, rows)
        speed = {} if rate is None else {"train/tokens_per_second": rate}
        step = self.trainer.fit_loop.epoch_loop._batches_that_stepped
        for member, parts in pairs:
            logged = member.module.training_metrics(parts, batch)
            member.write({**logged, **speed, "epoch": self.trainer.current_epoch}, step)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add a batch to the metrics of every member."""
        failures = {}
        for member in self.active:
            try:
                taken = member.module.taken(batch)
                member.module.measure(taken, member.module.val_metrics)
                if self._validates_alone:
                    self._probe(member, taken)
            except Exception as error:  # of this member alone, such as weights that are not finite
                failures[member] = reason(error)
        self._drop(failures)

    def on_validation_epoch_end(self) -> None:
        """Log and keep the metrics of every member."""
        raise_if_flagged()
        step = self.trainer.fit_loop.epoch_loop._batches_that_stepped
        for member in self.active:
            found = {}
            for name, metric in member.module.val_metrics.named_children():
                assert isinstance(metric, Metric)
                found[f"val/{name}"] = float(metric.compute())
                metric.reset()
            for name, mean in self._probed.pop(member.name, {}).items():
                found[f"penalty/{name}"] = float(mean.compute())
            member.validation = found
            if not self._validates_alone:
                member.write({**found, "epoch": self.trainer.current_epoch}, step)

    @property
    def _validates_alone(self) -> bool:
        return self.trainer.state.fn != TrainerFn.FITTING

    def _probe(self, member: Member, batch: ActivationBatch) -> None:
        """Penalties of the probes at a batch."""
        sae = member.module.sae
        means = self._probed.setdefault(member.name, {name: RowMean() for name in self._probes})
        for name, regularizer in self._probes.items():
            x, compared = sae.normalize(batch.activations).x, None
            if isinstance(regularizer, CodeRegularizer):
                compared = regularizer.chosen_embeddings(batch.activations, batch.embeddings)
            targets = member.module.normalized_targets(batch.targets)
            parts = objective(sae, x, targets, regularizer=regularizer, embeddings=compared)
            penalty = parts.penalty
            means[name].update(penalty.cpu(), len(x))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep who failed, and what tells shards and vocabularies from others."""
        raise_if_flagged()
        checkpoint["failures"] = {m.name: [m.failed_at, m.failure] for m in self.members}
        checkpoint["anchors"] = {m.name: described_anchor(m.module.anchor) for m in self.members}
        checkpoint["last_anchored"] = {
            m.name: plain_anchored(m.module.last_anchored) for m in self.members
        }
        checkpoint["shards"] = self._shards
        checkpoint["starts"] = {m.name: m.module.start for m in self.members}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Those that failed do not go on."""
        require_same_shards(checkpoint["shards"], self._shards)
        for member in self.members:
            member.failed_at, member.failure = checkpoint["failures"][member.name]
            trained_with = checkpoint.get("anchors", {}).get(member.name)
            found = described_anchor(member.module.anchor)
            try:
                require_same_vocabulary(trained_with, found)
            except LightsaeError as error:
                raise LightsaeError(f"{member.name} {error}") from error
            kept = checkpoint.get("last_anchored", {}).get(member.name)
            member.module.last_anchored = anchored_of(kept)
            start = start_of_checkpoint({"start": checkpoint.get("starts", {}).get(member.name)})
            require_same_start(start, member.module.start)
            member.module.keep_start(start)


def _rank(module: SAEModule) -> tuple[bool, bool]:
    """Members whose gradients are made together come first, of these first the plain ones."""
    joint = has_joint_gradient(module.regularizer) and module.anchor is None
    return not joint, module.regularizer is not None


def _build_like(first: Any, module: Any) -> None:
    """Build a module with the width, and if it is fresh the scale and centre, of another."""
    if not hasattr(module, "sae"):
        module._build(first.sae.d_in, first.sae.d_out)
    module._shards = first._shards
    if not is_untrained(module.sae):
        return
    if module.start_from is not None:
        module.start = start_from(module.start_from, module.sae)
    else:
        with torch.no_grad():
            for name in ("scale", "b_dec", "target_scale", "b_in"):
                if hasattr(first.sae, name):
                    getattr(module.sae, name).copy_(getattr(first.sae, name))


def _diagnosis(member: Member, batch: ActivationBatch, loss: Tensor) -> str | None:
    """Why a member cannot go on, as its own run would say; None if it can.

    Raises:
        LightsaeError: If the batch itself is not finite.
    """
    module = member.module
    if not (batch.activations.isfinite().all() and module.reconstructed_of(batch).isfinite().all()):
        raise LightsaeError("a batch has NaN or infinite values")
    try:
        x, targets = module.sae.normalize(batch.activations).x, batch.targets
        objective(module.sae, x, module.normalized_targets(targets), regularizer=module.regularizer)
    except (ArgumentError, LightsaeError) as error:
        return str(error)
    except Exception as error:
        return reason(error)
    return None if bool(loss.isfinite()) else f"the loss is {loss.item():g}"


def _nothing(module: SAEModule, x: Tensor) -> Objective:
    """In place of the loss of a member whose code raised an error."""
    k = module.selection.k
    nan = x.new_full((), torch.nan)
    nowhere = torch.zeros(len(x), k, dtype=torch.int64, device=x.device)
    active = torch.zeros(module.d_sae, dtype=torch.bool, device=x.device)
    encoded = Encoded(x.new_zeros(len(x), k), nowhere, nan, active)
    return Objective(nan, nan, nan, nan, encoded, torch.zeros_like(x))
