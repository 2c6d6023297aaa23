"""The loss of a module at a batch: its objective, lambda at the step, and who counts as dead."""

from typing import Any

from lightsae_kernels import Encoded
from torch import Tensor

from lightsae.activations import ActivationBatch
from lightsae.sae import AuxK, CodeRegularizer, Objective, objective
from lightsae.sae.losses.vocabulary_anchor import Anchored
from lightsae.training.module_parts.building import BuiltModule
from lightsae.training.rank_weights import share_of_rows


class LossModule(BuiltModule):
    """The loss of `SAEModule`."""

    def objective_of(self, batch: ActivationBatch) -> Objective:
        """Loss and its parts at a batch of training, this rank's share; counts who fired."""
        share = share_of_rows(batch.activations, self.process_group)
        parts = self._objective(
            batch.activations, self._update_dead, batch.embeddings, self._regularizer_weight(),
            batch.targets, self._anchor_weight(),
        )  # fmt: skip
        if parts.anchor is not None and parts.nearest_cosine is not None:
            self.last_anchored = Anchored(parts.anchor.detach(), parts.nearest_cosine)
        return parts.weighted(share)

    def _objective(
        self,
        activations: Tensor,
        dead: Any = None,
        embeddings: Tensor | None = None,
        weight: float | Tensor | None = None,
        targets: Tensor | None = None,
        anchor_weight: float | None = None,
    ) -> Objective:
        regularizer, compared = self.regularizer, None
        if isinstance(regularizer, CodeRegularizer):
            compared = regularizer.chosen_embeddings(activations, embeddings)
        return objective(
            self.sae,
            self.sae.normalize(activations).x,
            self.normalized_targets(targets),
            regularizer=regularizer,
            aux_k=self.aux_k,
            dead=dead,
            process_group=self.process_group,
            embeddings=compared,
            regularizer_weight=weight,
            reconstruction=self.reconstruction,
            anchor=None if anchor_weight is None else self.anchor,
            anchor_weight=anchor_weight,
        )

    def _regularizer_weight(self) -> float | None:
        """Lambda at this step of the run where it has a warm-up; None where it is the full one."""
        if self.regularizer is None or not self.regularizer.weight_warmup:
            return None
        return self.regularizer.weight_at(self.trainer.global_step)

    def _anchor_weight(self) -> float | None:
        """Lambda of the anchor at this step of the run; None where it is not computed."""
        if self.anchor is None:
            return None
        return self.anchor.weight_of_step(self.trainer.global_step)

    def _update_dead(self, encoded: Encoded) -> Tensor:
        settings = AuxK() if self.aux_k is None else self.aux_k
        self.dead_latents.update(encoded, settings.fired_above, self.process_group)
        return self.dead_latents.dead(self.dead_after)

    @property
    def dead_after(self) -> int:
        """Rows without firing after which a latent is dead."""
        settings = AuxK() if self.aux_k is None else self.aux_k
        return settings.dead_after_rows(self.d_sae, self.selection.k)
