from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from lightsae.errors import LightsaeError
from lightsae.interventions.look_ahead.language_model import LanguageModel

from .language_models import saved_model

PROMPTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9", "w3 w3"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LanguageModel.load(saved_model(tmp_path_factory.mktemp("model")), batch_size=3)


def test_one_token_is_the_likeliest_after_each_prompt_alone(model: LanguageModel) -> None:
    found = model.answers(PROMPTS, 1)
    for prompt, answer in zip(PROMPTS, found, strict=True):
        logits = model.model(**model.tokenizer(prompt, return_tensors="pt")).logits
        assert answer == model.tokenizer.decode(logits[0, -1].argmax())


def test_more_tokens_begin_with_the_one(model: LanguageModel) -> None:
    one, three = model.answers(PROMPTS, 1), model.answers(PROMPTS, 3)
    assert [text.split()[0] for text in three] == one
    assert all(len(text.split()) == 3 for text in three)
    continued = [f"{prompt} {text}" for prompt, text in zip(PROMPTS, one, strict=True)]
    assert [text.split()[1] for text in three] == model.answers(continued, 1)


def test_the_loss_of_a_text_does_not_know_the_others(model: LanguageModel) -> None:
    together = model.loss(PROMPTS)
    assert together.counts.tolist() == [3, 1, 5, 2]
    for prompt, amount in zip(PROMPTS, together.amounts, strict=True):
        given = model.tokenizer(prompt, return_tensors="pt")
        alone = model.model(**given, labels=given["input_ids"]).loss * (
            given["input_ids"].shape[1] - 1
        )
        torch.testing.assert_close(amount.float(), alone, rtol=1e-4, atol=1e-5)


def test_the_longest_answer(model: LanguageModel) -> None:
    assert model.tokens_of(["w1", "w2 w3 w4", "w1 w2"]) == 3


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=r"model .*: expected a causal language model"):
        LanguageModel.load(str(tmp_path))


def test_a_tokenizer_without_padding_uses_its_end(model: LanguageModel) -> None:
    model.tokenizer.pad_token = None
    with pytest.raises(LightsaeError, match="neither a pad token nor an end of text"):
        LanguageModel(model.model, model.tokenizer)
    model.tokenizer.eos_token = "<s>"
    try:
        assert LanguageModel(model.model, model.tokenizer).tokenizer.pad_token == "<s>"
    finally:
        model.tokenizer.pad_token, model.tokenizer.eos_token = "<pad>", None
