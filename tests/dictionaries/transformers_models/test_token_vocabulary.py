"""Tokens of a small causal language model as a vocabulary."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.activations.extraction.models import ModelOptions
from lightsae.dictionaries.naming.token_vocabulary import load_token_vocabulary, token_vocabulary
from lightsae.errors import LightsaeError
from lightsae.interventions.examples.dated_world.training import word_tokenizer

transformers = pytest.importorskip("transformers")

WORDS = ["cat", "dog", "oak"]


def _model(**options: Any) -> Any:
    torch.manual_seed(0)
    given = {
        "vocab_size": 8, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
    }  # fmt: skip
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**(given | options)))


def test_tokens_carry_their_embeddings_but_padding_and_unused_rows_are_left_out() -> None:
    model, tokenizer = _model(), word_tokenizer(WORDS)
    found = token_vocabulary(model, tokenizer)
    assert found.names == ["<s>", "<unk>", *WORDS]
    assert torch.equal(found.vectors, model.model.embed_tokens.weight.detach()[1:6])
    assert found.about == {"tokens": "input", "subtract_mean": False}


def test_output_embeddings_are_those_of_the_logits() -> None:
    model = _model()
    found = token_vocabulary(model, word_tokenizer(WORDS), "output")
    assert torch.equal(found.vectors, model.lm_head.weight.detach()[:6])
    tied = _model(tie_word_embeddings=True)
    both = [token_vocabulary(tied, word_tokenizer(WORDS), which) for which in ("input", "output")]  # type: ignore[arg-type]
    assert torch.equal(both[0].vectors, both[1].vectors)


def test_the_mean_of_what_is_kept_can_be_subtracted() -> None:
    plain, centred = (
        token_vocabulary(_model(), word_tokenizer(WORDS), subtract_mean=each).vectors
        for each in (False, True)
    )
    torch.testing.assert_close(centred, plain - plain.mean(dim=0))


class _Odd:
    """A tokenizer of bytes, two of whose tokens say the same."""

    def get_vocab(self) -> dict[str, int]:
        return {"\u0120a": 0, "_a": 1, "half": 2, "empty": 3, "b": 4}

    def decode(self, numbers: list[int]) -> str:
        return [" a", " a", "\ufffd", "", "b"][numbers[0]]

    def convert_ids_to_tokens(self, numbers: list[int]) -> list[str]:
        return ["\u0120a", "_a", "<0xE2>", "<0xE2>", "b"]


def test_tokens_of_one_text_are_told_apart() -> None:
    model = _model(pad_token_id=None)
    found = token_vocabulary(model, _Odd())  # type: ignore[arg-type]
    assert found.names == ["\u0120a", "_a", "<0xE2>#2", "<0xE2>#3", "b"]


def test_added_tokens_may_leave_gaps() -> None:
    class Gaps(_Odd):
        """Numbers 0, 1 and 6 of 8, and one that the model has no row for."""

        def get_vocab(self) -> dict[str, int]:
            return {"cat": 0, "dog": 1, "oak": 4, "<added>": 6, "<more>": 9}

        def decode(self, numbers: list[int]) -> str:
            return {0: "cat", 1: "dog", 4: "oak", 6: "<added>"}[numbers[0]]

        def convert_ids_to_tokens(self, numbers: list[int]) -> list[str]:
            return [self.decode([number]) for number in numbers]

    model = _model(pad_token_id=None)
    found = token_vocabulary(model, Gaps())  # type: ignore[arg-type]
    assert found.names == ["cat", "dog", "oak", "<added>"]
    assert torch.equal(found.vectors, model.model.embed_tokens.weight.detach()[[0, 1, 4, 6]])


def test_half_precision_gives_the_same_names_in_float32() -> None:
    model = _model().bfloat16()
    found = token_vocabulary(model, word_tokenizer(WORDS))
    assert found.vectors.dtype == torch.float32
    assert torch.equal(found.vectors, model.model.embed_tokens.weight.detach()[1:6].float())


def test_a_model_by_name_comes_with_its_tokenizer(tmp_path: Path) -> None:
    model = _model()
    model.save_pretrained(tmp_path)
    word_tokenizer(WORDS).save_pretrained(tmp_path)
    found = load_token_vocabulary(ModelOptions(name=str(tmp_path), library="transformers"))
    assert torch.equal(found.vectors, model.model.embed_tokens.weight.detach()[1:6])
    assert found.about["model"] == f"transformers:{tmp_path}"


def test_what_is_no_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="expected a causal language model of transformers"):
        load_token_vocabulary(ModelOptions(name=str(tmp_path), library="transformers"))
    with pytest.raises(LightsaeError, match="embeddings is 'middle', expected input or output"):
        token_vocabulary(_model(), word_tokenizer(WORDS), "middle")  # type: ignore[arg-type]
    with pytest.raises(LightsaeError, match="the tokenizer has 6 tokens for 20 embeddings"):
        token_vocabulary(_model(vocab_size=20), word_tokenizer(WORDS))
    part = _model().model
    with pytest.raises(LightsaeError, match="LlamaModel has no output embeddings"):
        token_vocabulary(part, word_tokenizer(WORDS), "output")
