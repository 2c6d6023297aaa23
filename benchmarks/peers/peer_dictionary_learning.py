"""dictionary_learning: `update` of one of its Top-k trainers."""

from itertools import count

from adapter import LEARNING_RATE, Sizes, Trainer
from dictionary_learning.trainers import BatchTopKTrainer, TopKTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from torch import Tensor

RULES = {
    "topk": TopKTrainer,
    "batchtopk": BatchTopKTrainer,
    "matryoshka": MatryoshkaBatchTopKTrainer,
}


def build(sizes: Sizes, sample: Tensor, rule: str = "topk") -> Trainer:
    # Shares of the groups; the prefixes end at an eighth, a quarter, half and all of them.
    groups = {"group_fractions": [0.125, 0.125, 0.25, 0.5]} if rule == "matryoshka" else {}
    trainer = RULES[rule](
        steps=1_000_000,
        activation_dim=sizes.d_in,
        dict_size=sizes.d_sae,
        k=sizes.k,
        layer=0,
        lm_name="none",
        lr=LEARNING_RATE,
        warmup_steps=1,
        device=str(sample.device),
        **groups,
    )
    numbers = count()

    def step(x: Tensor) -> None:
        trainer.update(next(numbers), x)

    return Trainer(step, trainer.ae, optimizer=trainer.optimizer)
