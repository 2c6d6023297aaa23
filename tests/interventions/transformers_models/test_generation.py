"""Edits while transformers' models generate, with and without a cache."""

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interventions import Scale, Swap, ZeroAblate, attach

from ..hooks.models import random_sae

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0,
        bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def sae():
    torch.manual_seed(1)
    return random_sae(32, 64, 8)


PROMPT = torch.tensor([[5, 7, 11, 13, 17], [6, 8, 12, 14, 18]])


def generated(model, **options):
    return model.generate(
        PROMPT, attention_mask=torch.ones_like(PROMPT), max_new_tokens=6, do_sample=False,
        output_logits=True, return_dict_in_generate=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize("places", [{}, {"positions": [0, 2]}])
def test_a_cache_changes_nothing_about_an_edit(llama, sae, places):
    with torch.no_grad(), attach(llama, {"model.layers.1": sae}) as attached:
        with attached.edit(Scale(None, 4.0), **places):
            cached = generated(llama, use_cache=True)
        with attached.edit(Scale(None, 4.0), **places):
            whole = generated(llama, use_cache=False)
    logits = torch.stack(cached.logits)
    torch.testing.assert_close(logits, torch.stack(whole.logits), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits, torch.stack(generated(llama).logits))


def test_a_position_among_the_new_tokens_is_edited_when_it_comes(llama, sae):
    bare = torch.stack(generated(llama).logits)
    with (
        torch.no_grad(),
        attach(llama, {"model.layers.1": sae}) as attached,
        attached.edit(Scale(None, 4.0), positions=[6], must_touch=True),
    ):
        found = torch.stack(generated(llama).logits)
    same = [torch.equal(one, two) for one, two in zip(found, bare, strict=True)]
    assert same[:2] == [True, True] and not same[2]


def test_nothing_edited_generates_the_same_bits(llama, sae):
    bare = generated(llama)
    with attach(llama, {"model.layers.1": sae}) as attached, attached.record() as recording:
        found = generated(llama)
    assert torch.equal(torch.stack(found.logits), torch.stack(bare.logits))
    assert [seen.lead for seen in recording.passes("model.layers.1")] == [(2, 5)] + [(2, 1)] * 5


def test_positions_from_the_end_are_refused_with_a_cache(llama, sae):
    with (
        pytest.raises(
            LightsaeError, match=r"position -1 of layer .* every new token would be edited"
        ),
        attach(llama, {"model.layers.1": sae}) as attached,
        attached.edit(Scale(None, 4.0), positions=[-1]),
    ):
        generated(llama)


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"num_return_sequences": 2}])
def test_samples_are_refused_where_beams_multiply_them(llama, sae, options):
    with (
        pytest.raises(LightsaeError, match="sees 4 samples where the model was given 2"),
        attach(llama, {"model.layers.1": sae}) as attached,
        attached.edit(Scale(None, 4.0), samples=[1]),
    ):
        llama.generate(PROMPT, max_new_tokens=2, do_sample=True, **options)


def test_samples_are_those_of_the_prompts(llama, sae):
    bare = torch.stack(generated(llama).logits)
    with (
        attach(llama, {"model.layers.1": sae}) as outer,
        attach(llama, {"model.layers.0": sae}),
        outer.edit(Scale(None, 4.0), samples=[1]),
    ):
        found = torch.stack(generated(llama).logits)
    assert torch.equal(found[:, 0], bare[:, 0]) and not torch.equal(found[:, 1], bare[:, 1])
    assert "generate" not in vars(llama)


def test_hooks_that_end_out_of_order_leave_generate_as_it_was(llama, sae):
    first, second, third = (attach(llama, {"model.layers.1": sae}) for _ in range(3))
    for attached in (second, first, third):
        generated(llama)
        attached.remove()
    assert "generate" not in vars(llama)


def test_a_swap_does_not_go_on_over_the_new_tokens(llama, sae):
    with attach(llama, {"model.layers.1": sae}) as attached:
        with attached.record() as recording:
            llama(PROMPT[:, :1])
        with (
            pytest.raises(LightsaeError, match=r"Swap starts at position 0, the pass .* at 1,"),
            attached.edit(Swap(None, recording["model.layers.1"])),
        ):
            llama.generate(PROMPT[:, :1], max_new_tokens=3)


@pytest.mark.parametrize("length", [1, 5])
def test_positions_are_refused_where_a_state_does_not_count_them(sae, length):
    torch.manual_seed(0)
    config = transformers.MambaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=4
    )
    model = transformers.MambaForCausalLM(config).eval()
    with attach(model, {"backbone.layers.0": sae}) as attached:
        with attached.edit(Scale(None, 4.0)):
            model.generate(PROMPT[:, :length], max_new_tokens=2)
        with (
            pytest.raises(LightsaeError, match="a cache that does not say how many positions"),
            attached.edit(Scale(None, 4.0), positions=[0]),
        ):
            model.generate(PROMPT[:, :length], max_new_tokens=2)


def test_the_encoder_of_whisper_is_edited_once_per_input():
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=16,
        max_source_positions=20, max_target_positions=16, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=3, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config).eval()
    features = torch.randn(2, 16, 40)
    sae = random_sae(32, 64, 8)
    with attach(model, {"model.encoder.layers.1": sae}) as attached:
        with attached.record() as recording:
            model.generate(features, max_new_tokens=5)
        latents = recording["model.encoder.layers.1"].code.indices[0, :2].tolist()
        with attached.edit(ZeroAblate(latents), positions=[0, 1, 2]) as handle:
            model.generate(features, max_new_tokens=5)
        assert handle.touched
    assert recording["model.encoder.layers.1"].lead == (2, 20)
