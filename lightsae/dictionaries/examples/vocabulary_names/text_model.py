"""Tokens of a text, a small Llama trained on them, and what one of its blocks gives."""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.extras import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WARMUP = 50
_WINDOWS_AT_ONCE = 128


@dataclass(frozen=True)
class TextModel:
    """How text and model are made.

    Attributes:
        tokens: Size of the vocabulary of byte pairs.
        window: Tokens of a window, which the model sees at once.
        width: Of the residual stream.
        layers: Blocks.
        block: Whose output is encoded; not the last one's, which comes normalised.
        steps: Steps of the optimizer.
        batch_size: Windows per step.
        lr: Highest learning rate; linear warm-up, then linear to 0.
    """

    tokens: int = 512
    window: int = 64
    width: int = 96
    layers: int = 4
    block: int = 0
    steps: int = 500
    batch_size: int = 32
    lr: float = 3e-3


class Activations(NamedTuple):
    """What a block gives at the tokens of some windows, the first of each left out.

    Attributes:
        rows: [n, width] float32.
        windows: Token numbers [windows, window], int64; row r is of window r // (window - 1).
    """

    rows: Tensor
    windows: Tensor

    def place(self, row: int) -> tuple[int, int]:
        """Window and token of a row."""
        before = self.windows.shape[1] - 1
        return row // before, row % before + 1


def read_text(path: Path) -> str:
    """A text, of a .gz file too.

    Raises:
        LightsaeError: If it cannot be read.
    """
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise LightsaeError(f"{path} cannot be read as text: {error}") from error


def byte_pairs(text: str, tokens: int) -> "PreTrainedTokenizerBase":
    """A tokenizer of the byte pairs that are most frequent in a text."""
    tokenizers = require("tokenizers", extra="models")
    transformers = require("transformers", extra="models")
    plain = tokenizers.Tokenizer(tokenizers.models.BPE())
    plain.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=tokens, show_progress=False)
    plain.train_from_iterator(text.splitlines(keepends=True), trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain)


def windows_of(text: str, tokenizer: "PreTrainedTokenizerBase", window: int) -> Tensor:
    """Token numbers of a text, [windows, window]; what fills no window is left out."""
    numbers = torch.tensor(tokenizer(text, verbose=False)["input_ids"])
    return numbers[: len(numbers) // window * window].view(-1, window)


def trained(windows: Tensor, options: TextModel, vocabulary: int, seed: int) -> "PreTrainedModel":
    """A Llama with tied embeddings, trained on windows that are drawn at random.

    Args:
        windows: Token numbers [windows, window].
        options: Sizes and steps.
        vocabulary: Number of tokens.
        seed: Of weights and draws.

    Returns:
        The model, in eval mode.
    """
    transformers = require("transformers", extra="models")
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=options.width, intermediate_size=3 * options.width,
        num_hidden_layers=options.layers, num_attention_heads=4, tie_word_embeddings=True,
        max_position_embeddings=options.window, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / _WARMUP, 1) * (1 - step / options.steps)
    )
    drawn = torch.randint(len(windows), (options.steps, options.batch_size))
    console = Console(stderr=True)
    for batch in track(windows[drawn], "language model", console=console, transient=True):
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def activations(model: "PreTrainedModel", block: int, windows: Tensor) -> Activations:
    """What a block gives at the tokens of some windows."""
    rows = [
        model.model(input_ids=part, output_hidden_states=True).hidden_states[block + 1][:, 1:]
        for part in windows.split(_WINDOWS_AT_ONCE)
    ]
    return Activations(torch.cat(rows).flatten(0, 1).float(), windows)
