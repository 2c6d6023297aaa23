"""A tiny language model of random weights whose tokens are words."""

from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")

from lightsae.interventions.examples.dated_world.training import word_tokenizer  # noqa: E402

WORDS = [f"w{number}" for number in range(40)]


def saved_model(folder: Path) -> str:
    """A folder with a Llama of 3 blocks and width 16, and its tokenizer."""
    tokenizer = word_tokenizer(WORDS)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=3,
        num_attention_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=None,
        initializer_range=0.5,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
