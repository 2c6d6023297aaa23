from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from lightsae.errors import LightsaeError  # noqa: E402
from lightsae.interventions.look_ahead.language_model import LanguageModel  # noqa: E402

from .language_models import saved_model  # noqa: E402

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
    with pytest.raises(LightsaeError, match=r"model .* cannot be loaded, expected a causal"):
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


def test_settings_of_generation_do_not_change_an_answer(model: LanguageModel) -> None:
    before = model.answers(PROMPTS, 3)
    model.model.generation_config.repetition_penalty = 20.0
    model.model.generation_config.no_repeat_ngram_size = 1
    try:
        assert model.answers(PROMPTS, 3) == before
    finally:
        model.model.generation_config.repetition_penalty = None
        model.model.generation_config.no_repeat_ngram_size = None


def letters() -> "transformers.PreTrainedTokenizerBase":
    """A tokenizer of words that go on over tokens, such as "Bush" and "el"."""
    tokens = ["<pad>", "\u2581", "\u2581Bush", "el", "\u2581Obama", "\u2581New", "\u2581York", "."]
    numbers = {token: number for number, token in enumerate(tokens)}
    merges: list[tuple[str, str]] = []
    plain = tokenizers.Tokenizer(
        tokenizers.models.BPE(numbers, merges, unk_token="<pad>", ignore_merges=True)
    )
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="never")
    plain.decoder = tokenizers.decoders.Metaspace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>")


def test_a_word_that_may_go_on_takes_a_token_more(model: LanguageModel) -> None:
    found = LanguageModel(model.model, letters())
    assert found.tokenizer.decode([2, 3]).strip() == "Bushel"
    assert found.tokens_of(["Bush", "Obama"]) == 1 + 1
    assert found.tokens_of(["Bush", "New York"]) == 2 + 1


def test_texts_that_the_model_cannot_take(model: LanguageModel) -> None:
    with pytest.raises(LightsaeError, match="has a word that the tokenizer does not know"):
        model.require_known(["w1 w2", "w1 nobody"])
    model.require_known(PROMPTS)
    long = " ".join(["w1"] * 2048)
    with pytest.raises(LightsaeError, match="has 2049 tokens, the model has 2048 positions"):
        model.answers(["w1", long], 1)
    with pytest.raises(LightsaeError, match="text '' has no token"):
        LanguageModel(model.model, letters()).answers(["Bush", ""], 1)
    with pytest.raises(LightsaeError, match="batch_size is 0, expected at least 1"):
        LanguageModel(model.model, model.tokenizer, batch_size=0)


def test_a_model_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    folder = Path(saved_model(tmp_path))
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LightsaeError, match=r"lacks 1 weights of .*layers.1.mlp.up_proj.weight"):
        LanguageModel.load(str(folder))
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(LightsaeError, match="cannot be loaded, expected a causal language model"):
        LanguageModel.load(str(folder))


def test_a_device_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="device is 'moon'"):
        LanguageModel.load(saved_model(tmp_path), device="moon")
