"""SAELens: `SAETrainer.step` on one of its Top-k training SAEs, dense or with COO activations."""

from itertools import repeat

from adapter import LEARNING_RATE, Sizes, Trainer
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

RULES = {
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    "matryoshka": (MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig),
}


def build(sizes: Sizes, sample: Tensor, rule: str = "topk", sparse: bool = False) -> Trainer:
    kind, make_config = RULES[rule]
    # Its Matryoshka losses are summed, and the whole dictionary is one of the widths.
    widths = {"matryoshka_widths": [sizes.d_sae // 8, sizes.d_sae // 4, sizes.d_sae // 2,
                                    sizes.d_sae]}  # fmt: skip
    # With sparse activations and torch 2.15 the rescaling has no backward on the CPU.
    config = make_config(
        d_in=sizes.d_in,
        d_sae=sizes.d_sae,
        k=sizes.k,
        device=str(sample.device),
        use_sparse_activations=sparse,
        rescale_acts_by_decoder_norm=not sparse,
        **(widths if rule == "matryoshka" else {}),
    )
    sae = kind(config)
    settings = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=sizes.batch,
        lr=LEARNING_RATE,
        lr_end=LEARNING_RATE,
        device=str(sample.device),
    )
    trainer = SAETrainer(settings, sae, data_provider=repeat(sample))

    def step(x: Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    return Trainer(step, sae, optimizer=trainer.optimizer)
