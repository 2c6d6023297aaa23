"""The tokenizer of the world's words, a small Llama trained on what is written, its activations."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lightsae.extras import require
from lightsae.interventions.examples.dated_world.world import Mixture, World
from lightsae.interventions.look_ahead.language_model import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WARMUP = 50


@dataclass(frozen=True)
class Training:
    """How the model is trained.

    Attributes:
        steps: Steps of the optimizer.
        batch_size: Sentences per step.
        lr: Highest learning rate; linear warm-up, then linear to 0.
        width: Of the residual stream.
        layers: Blocks.
    """

    steps: int = 1000
    batch_size: int = 128
    lr: float = 3e-3
    width: int = 96
    layers: int = 3


def word_tokenizer(words: list[str]) -> "PreTrainedTokenizerBase":
    """A tokenizer with a token for each word, and one that begins each text.

    Args:
        words: All words.
    """
    tokenizers = require("tokenizers", extra="models")
    transformers = require("transformers", extra="models")
    special = ["<pad>", "<s>", "<unk>"]
    numbers = {word: number for number, word in enumerate([*special, *words])}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    plain.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", numbers["<s>"])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", bos_token="<s>", unk_token="<unk>"
    )


def trained(
    world: World, folder: Path, training: Training, mixture: Mixture, seed: int
) -> LanguageModel:
    """Train a Llama on sentences of the world, and keep it; one that is there is loaded.

    Args:
        world: The world.
        folder: Gets model and tokenizer, both at once.
        training: Size and steps.
        mixture: What is written.
        seed: Of weights and sentences.

    Returns:
        The model with its tokenizer.
    """
    if not folder.exists():
        tokenizer = word_tokenizer(world.words)
        model = _llama(len(tokenizer), training, seed)
        written = world.sentences(training.steps * training.batch_size, mixture, seed)
        _train(model, tokenizer(written, padding=True, return_tensors="pt")["input_ids"], training)
        unfinished = folder.with_name(f".{folder.name}.tmp")
        tokenizer.save_pretrained(unfinished)
        model.save_pretrained(unfinished)
        unfinished.rename(folder)
    return LanguageModel.load(str(folder), batch_size=512)


def _llama(words: int, training: Training, seed: int) -> "PreTrainedModel":
    transformers = require("transformers", extra="models")
    config = transformers.LlamaConfig(
        vocab_size=words, hidden_size=training.width, intermediate_size=2 * training.width,
        num_hidden_layers=training.layers, num_attention_heads=4, max_position_embeddings=32,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(config)


def _train(model: "PreTrainedModel", tokens: Tensor, training: Training) -> None:
    """Minimise the cross-entropy of the next word; padding, token 0, does not count."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, weight_decay=0.01)
    steps = training.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / _WARMUP, 1) * (1 - step / steps)
    )
    batches = tokens.split(training.batch_size)
    console = Console(stderr=True)
    for batch in track(batches, "language model", console=console, transient=True):
        loss = model(input_ids=batch, labels=batch.masked_fill(batch == 0, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def activations(model: LanguageModel, block: int, sentences: list[str]) -> tuple[Tensor, Tensor]:
    """What a block gives at every token of some sentences.

    Args:
        model: The model.
        block: Number of the block; not the last one, whose output comes normalised.
        sentences: Texts.

    Returns:
        Rows [n, d_in] float32, and the number of the sentence of each, [n] int64.
    """
    rows, sentence, before = [], [], 0
    for batch in model.batches(sentences):
        states = model.model(**batch, output_hidden_states=True).hidden_states[block + 1]
        there = batch["attention_mask"].bool()
        rows.append(states[there].float())
        sentence.append(before + there.nonzero()[:, 0])
        before += len(states)
    return torch.cat(rows), torch.cat(sentence)
