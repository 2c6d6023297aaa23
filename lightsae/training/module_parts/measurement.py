"""What is measured of a module's batches: logged of training steps, summed up over a split."""

from typing import Any

import torch
from lightsae_kernels import raise_if_flagged
from torch import Tensor
from torchmetrics import Metric

from lightsae.activations import ActivationBatch
from lightsae.sae import Objective, SparseCode
from lightsae.sae.selection import learned_figures
from lightsae.training.evaluation_metrics import EvaluationMetrics
from lightsae.training.module_parts.loss import LossModule
from lightsae.training.module_parts.throughput import Throughput
from lightsae.training.rank_weights import share_of_rows

_IN_BAR = ("train/loss", "train/r2")


class MeasuredModule(LossModule):
    """Logging and evaluation of `SAEModule`."""

    _throughput: Throughput

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Metrics of the validation split."""
        self._evaluate(self.taken(batch), self.val_metrics, "val/")

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Metrics of the test split.

        Returns:
            For callbacks: the activations "x", their "code", the reconstruction "x_hat" and the
            "targets" that it is of, or None where these are the activations.
        """
        return self._evaluate(self.taken(batch), self.test_metrics, "test/")

    def on_test_epoch_end(self) -> None:
        """Raise for NaN and inf that a GPU has met since."""
        raise_if_flagged()

    def predict_step(self, batch: Any, batch_idx: int) -> SparseCode:
        """Code of a batch."""
        return self.sae.encode(self.taken(batch, with_targets=False).activations)

    def _evaluate(
        self, batch: ActivationBatch, metrics: EvaluationMetrics, prefix: str
    ) -> dict[str, Any]:
        found = self.measure(batch, metrics)
        for name, metric in metrics.named_children():
            assert isinstance(metric, Metric)
            self.log(f"{prefix}{name}", metric, on_epoch=True, batch_size=len(batch.activations))
        return found

    def measure(self, batch: ActivationBatch, metrics: EvaluationMetrics) -> dict[str, Any]:
        """Add a batch of an evaluation to its metrics; its activations, code and x_hat."""
        parts = self._objective(
            batch.activations, embeddings=batch.embeddings, targets=batch.targets
        )
        values, indices = parts.encoded.values, parts.encoded.indices
        x_hat = self._reconstruction(parts, batch)
        metrics.r2.update(x_hat=x_hat, x=self.reconstructed_of(batch))
        metrics.l0.update(values)
        metrics.dead.update(values, indices)
        metrics.loss.update(parts.loss, len(values))
        metrics.reconstruction.update(parts.reconstruction, len(values))
        metrics.penalty.update(parts.penalty, len(values))
        code = SparseCode(values, indices, self.d_sae)
        return {
            "x": batch.activations, "code": code, "x_hat": x_hat, "targets": batch.targets
        }  # fmt: skip

    def _reconstruction(self, parts: Objective, batch: ActivationBatch) -> Tensor:
        """x_hat in the units of the activations, or of the targets."""
        x = self.reconstructed_of(batch)
        return x - self.sae.residual_in_units_of(x, parts.residual)

    @torch.no_grad()
    def training_metrics(self, parts: Objective, batch: ActivationBatch) -> dict[str, Any]:
        """What is logged of a step, by name."""
        x = batch.activations
        share = share_of_rows(x, self.process_group)
        logged = {
            "train/loss": parts.loss,
            "train/r2": self.train_r2(
                x_hat=self._reconstruction(parts, batch), x=self.reconstructed_of(batch)
            ),
            "train/reconstruction": parts.reconstruction,
            "train/aux_k": parts.aux_k,
            "train/penalty": parts.penalty,
            "train/l0": (parts.encoded.values > 0).sum() / len(x) * share,
            "train/dead_fraction": self.dead_latents.dead(self.dead_after).float().mean(),
            "train/batch_active_fraction": parts.encoded.batch_active.float().mean(),
        }
        if parts.sparsity is not None:
            logged["train/sparsity"] = parts.sparsity
        if self.last_anchored is not None:
            value, nearest = self.last_anchored
            logged |= {"train/anchor": value, "train/nearest_cosine": nearest}
        for name, figure in learned_figures(self.selection).items():
            logged[f"train/{name}"] = figure
        weight = self._regularizer_weight()
        if weight is not None:
            logged["train/regularizer_weight"] = torch.tensor(weight)
        self.train_r2.reset()
        return logged

    def _log_training(self, parts: Objective, batch: ActivationBatch) -> None:
        rows = len(batch.activations)
        for name, value in self.training_metrics(parts, batch).items():
            self.log(
                name, value, prog_bar=name in _IN_BAR, on_step=True, on_epoch=False,
                sync_dist=True, batch_size=rows,
            )  # fmt: skip
        step_rows = rows * self.trainer.world_size * self.trainer.accumulate_grad_batches
        rate = self._throughput.per_second(self.trainer.global_step, step_rows)
        if rate is not None:
            self.log("train/tokens_per_second", rate, prog_bar=True, batch_size=rows)

    def on_train_epoch_start(self) -> None:
        """Leave validation out of the throughput."""
        self._throughput.stop()

    def on_train_batch_end(self, *args: Any) -> None:
        """Start the throughput clock with the first step of an epoch."""
        self._throughput.start(self.trainer.global_step)
