"""dictionary_learning: `TopKTrainer.update`."""

from itertools import count

from adapter import LEARNING_RATE, Sizes, Trainer
from dictionary_learning.trainers import TopKTrainer
from torch import Tensor


def build(sizes: Sizes, sample: Tensor) -> Trainer:
    trainer = TopKTrainer(
        steps=1_000_000,
        activation_dim=sizes.d_in,
        dict_size=sizes.d_sae,
        k=sizes.k,
        layer=0,
        lm_name="none",
        lr=LEARNING_RATE,
        warmup_steps=1,
        device=str(sample.device),
    )
    numbers = count()

    def step(x: Tensor) -> None:
        trainer.update(next(numbers), x)

    return Trainer(step, trainer.ae, optimizer=trainer.optimizer)
