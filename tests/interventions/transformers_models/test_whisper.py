"""Transcripts and both figures against generation and a slow reckoning; the task from files."""

import copy
import json
import wave

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lightsae.errors import LightsaeError
from lightsae.interventions import ZeroAblate, attach
from lightsae.interventions.whisper import (
    Clip,
    HallucinationTask,
    Whisper,
    WhisperHallucinations,
    claims_speech,
    transcribe,
    word_errors,
)

from ..hooks.models import random_sae

pytest.importorskip("transformers")
from lightsae.interventions.examples.whisper_digits.tiny_whisper import tiny_whisper

LAYER = "model.encoder.layers.1"
SECOND = 16_000


@pytest.fixture(scope="module")
def whisper():
    torch.manual_seed(1)
    found = tiny_whisper(32, 2)
    # A head of its own, or each token would be followed by itself; the end is likelier than others.
    head = torch.randn(found.model.config.vocab_size, 32)
    head[found.decoding().end] *= 5
    found.model.config.tie_word_embeddings = False
    found.model.proj_out.weight = torch.nn.Parameter(head)
    with torch.no_grad():
        found.model.model.decoder.embed_positions.weight.mul_(20)
        for layer in found.model.model.decoder.layers:
            layer.encoder_attn.out_proj.weight.mul_(40)
    return found


@pytest.fixture(scope="module")
def audios():
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal(int(length)) * np.sin(np.arange(int(length)) / 9)).astype("float32")
        for length in rng.integers(800, 2 * SECOND, size=12)
    ]


@pytest.fixture(scope="module")
def features(whisper, audios):
    return whisper.features(audios)


def test_tokens_are_those_that_transformers_generates(whisper, features):
    found = transcribe(whisper, features)
    end = whisper.decoding().end
    generated = whisper.model.generate(
        features, language="en", task="transcribe", do_sample=False, num_beams=1,
        max_new_tokens=whisper.decoding().max_new,
    )  # fmt: skip
    prompt = len(whisper.decoding().prompt)
    lengths = set()
    for mine, theirs in zip(found.tokens.tolist(), generated.tolist(), strict=True):
        theirs = theirs[prompt:] if theirs[:1] == whisper.decoding().prompt[:1] else theirs
        cut = [[token for token in tokens if token != end] for tokens in (mine, theirs)]
        assert cut[0] == cut[1]
        lengths.add(len(cut[0]))
    assert len(lengths) > 1


def test_both_figures_agree_with_a_reckoning_without_cache_one_clip_at_a_time(whisper, features):
    found, decoding = transcribe(whisper, features), whisper.decoding()
    for clip in range(len(features)):
        total, count, ids = 0.0, 0, list(decoding.prompt)
        while True:
            with torch.no_grad():
                logits = whisper.model(
                    input_features=features[clip : clip + 1], decoder_input_ids=torch.tensor([ids])
                ).logits[0]
            if not count:
                no_speech = logits[0].softmax(-1)[decoding.no_speech]
                torch.testing.assert_close(found.no_speech_prob[clip], no_speech)
            allowed = logits[-1].clone()
            allowed[decoding.suppressed + (decoding.suppressed_first if not count else [])] = -1e9
            chosen = int(allowed.argmax())
            total += float(allowed.log_softmax(-1)[chosen])
            ids.append(chosen)
            if chosen == decoding.end or count + 1 == decoding.max_new:
                words = count + (chosen != decoding.end)
                break
            count += 1
        assert found.avg_logprob[clip].item() == pytest.approx(total / (words + 1), abs=1e-4)


def test_claims_are_one_or_the_other():
    probs, logprobs = torch.tensor([0.6, 0.59, 0.6]), torch.tensor([-1.0, -1.5, -0.9])
    assert claims_speech(probs, logprobs).tolist() == [False, True, True]


def test_a_figure_that_is_no_number_is_a_claim():
    nan = torch.tensor([torch.nan])
    assert claims_speech(nan, torch.tensor([-2.0])).item()
    assert claims_speech(torch.tensor([0.9]), nan).item()


def test_a_model_is_not_saved_over_another_folder(whisper, tmp_path):
    with pytest.raises(LightsaeError, match="is there already"):
        whisper.save(tmp_path)


def test_edits_of_the_encoder_reach_the_transcript(whisper, features):
    before = transcribe(whisper, features)
    with (
        attach(whisper.model, {LAYER: random_sae(32, 64, 8)}, error_term=False) as attached,
        attached.edit(ZeroAblate(None), LAYER),
    ):
        after = transcribe(whisper, features)
    assert not torch.equal(before.avg_logprob, after.avg_logprob)
    # Nothing of the clips is left: all sound alike.
    assert after.avg_logprob.std() < 1e-5 < before.avg_logprob.std()
    again = transcribe(whisper, features)
    assert torch.equal(before.no_speech_prob, again.no_speech_prob)


def test_word_errors():
    errors, words = word_errors(
        ["One, two!", "", "a b c", "seven [noise]"], ["one three", "four", "b c d", "Seven"]
    )
    assert errors.tolist() == [1, 1, 2, 0] and words.tolist() == [2, 1, 3, 1]


def clips(audios, names, text=""):
    return [Clip(name, audio, text) for name, audio in zip(names, audios, strict=True)]


def test_metrics_are_sums_by_recording(whisper, audios):
    silent = {
        "find": clips(audios[:2], "ab"),
        "choice": clips(audios[2:6], "cdcd"),
        "test": clips(audios[6:7], "e"),
    }
    speech = {"choice": clips(audios[7:10], "xyx", "one two"), "test": clips(audios[10:], "zz", "")}
    task = HallucinationTask(whisper, {LAYER: random_sae(32, 64, 8)}, speech, silent, batch_size=3)
    found = task.measure("choice")
    claims = transcribe(whisper, whisper.features(audios[2:6])).claims.double()
    torch.testing.assert_close(
        found["hallucination_rate"].amounts,
        torch.stack([claims[[0, 2]].sum(), claims[[1, 3]].sum()]),
    )
    assert found["wer"].counts.tolist() == [4, 2]
    assert len(found["missed_speech"].amounts) == 2


def test_what_the_model_does_not_claim_counts_as_lost(whisper, audios, monkeypatch):
    module = "lightsae.interventions.whisper.speech_claims.claims_speech"
    monkeypatch.setattr(module, lambda prob, _: torch.zeros_like(prob).bool())
    speech = {"choice": clips(audios[:2], "xy", "one two"), "test": clips(audios[2:3], "z", "one")}
    silent = {"find": clips(audios[3:4], "a"), "choice": clips(audios[4:5], "b"),
              "test": clips(audios[5:6], "c")}  # fmt: skip
    task = HallucinationTask(whisper, {}, speech, silent)
    found = task.measure("choice")
    assert found["wer"].value == 1 and found["missed_speech"].value == 1
    assert found["hallucination_rate"].value == 0
    with pytest.raises(LightsaeError, match="hallucinates on none of 1 clips of split 'find'"):
        task.examples()


def test_labels_of_speech(whisper, audios):
    silent = {split: clips(audios[n : n + 1], split[0]) for n, split in
              enumerate(("find", "choice", "test"))}  # fmt: skip
    speech = {split: clips(audios[n + 3 : n + 5], split[0] * 2, "one") for n, split in
              enumerate(("find", "choice", "test"))}  # fmt: skip
    task = HallucinationTask(
        whisper, {LAYER: random_sae(32, 64, 8)}, speech, silent, find_by="speech"
    )
    batches, labels = task.examples()
    assert labels.tolist() == [0, 1, 1]
    assert task.features(batches)[LAYER].codes.shape == (3, 64)
    with pytest.raises(LightsaeError, match="speech: no clips in split 'find'"):
        HallucinationTask(whisper, {}, {**speech, "find": []}, silent, find_by="speech")


@pytest.fixture
def folder(tmp_path, whisper, audios):
    """Model, autoencoder, and recordings as files."""
    whisper.save(tmp_path / "model")
    random_sae(32, 64, 8).save(tmp_path / "sae")
    for kind in ("speech", "nonspeech"):
        (tmp_path / kind).mkdir()
        for number, audio in enumerate(audios):
            with wave.open(str(tmp_path / kind / f"{number}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(SECOND)
                file.writeframes((audio / np.abs(audio).max() * 32767).astype("<i2").tobytes())
    table = "".join(f"{number}.wav\tone two\n" for number in range(len(audios)))
    (tmp_path / "texts.tsv").write_text(table)
    return tmp_path


def from_files(folder, **options):
    given = {
        "model": str(folder / "model"), "saes": {LAYER: str(folder / "sae")},
        "nonspeech": str(folder / "nonspeech"), "speech": str(folder / "speech"),
        "transcripts": str(folder / "texts.tsv"), "language": "en",
    }  # fmt: skip
    return WhisperHallucinations(**{**given, **options})


def test_the_task_from_folders(folder, whisper):
    task = from_files(folder)
    found = task.measure("test")
    assert len(found["wer"].amounts) == 4 and found["wer"].counts.sum() == 8
    clip = task.clips["nonspeech"]["find"][0]
    features = whisper.features([clip.audio])
    ours, theirs = transcribe(whisper, features), transcribe(task.whisper, features)
    assert torch.equal(ours.avg_logprob, theirs.avg_logprob)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "/nowhere/model"}, "model '/nowhere/model' cannot be loaded"),
        ({"nonspeech": "/nowhere"}, "/nowhere is no folder"),
    ],
)
def test_wrong_files_are_told(folder, options, message):
    with pytest.raises(LightsaeError, match=message):
        from_files(folder, **options)


def test_recordings_of_speech_are_not_among_those_without(folder):
    (folder / "nonspeech" / "7.wav").unlink()
    (folder / "nonspeech" / "7.wav").symlink_to(folder / "speech" / "3.wav")
    with pytest.raises(LightsaeError, match=r"nonspeech: .*7\.wav has a transcript"):
        from_files(folder)


def test_a_recording_that_is_too_long_is_told_at_once(folder):
    with wave.open(str(folder / "nonspeech" / "long.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SECOND)
        file.writeframes(bytes(2 * 3 * SECOND))
    with pytest.raises(LightsaeError, match=r"recording .*long\.wav' has 3\.0 s, the window"):
        from_files(folder)


def test_other_recordings_or_settings_have_other_hashes(folder):
    first = from_files(folder).hashes()
    assert first == from_files(folder).hashes()
    (folder / "speech" / "3.wav").write_bytes((folder / "speech" / "4.wav").read_bytes())
    assert {key for key, each in from_files(folder).hashes().items() if each != first[key]} == {
        "speech"
    }
    settings = folder / "model" / "generation_config.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({**content, "suppress_tokens": [1]}))
    (folder / "nonspeech" / "0.wav").unlink()
    changed = {key for key, each in from_files(folder).hashes().items() if each != first[key]}
    assert changed == {"speech", "nonspeech", "decoding"}


def test_weights_of_half_precision_are_run_in_single(folder, features):
    half = tiny_whisper(32, 2)
    half.model.half()
    half.save(folder / "half")
    loaded = Whisper.load(str(folder / "half"), language="en")
    assert {each.dtype for each in loaded.model.parameters()} == {torch.float32}
    assert transcribe(half, features).avg_logprob.dtype == torch.float32


def test_a_folder_without_all_weights_is_refused(folder):
    weights = load_file(folder / "model" / "model.safetensors")
    del weights["model.encoder.layers.1.fc1.bias"]
    save_file(weights, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LightsaeError, match=r"lacks 1 weights of a Whisper, such as .*fc1\.bias"):
        from_files(folder)


def changed_settings(whisper, **settings):
    """The model with other settings of generation; None takes one away."""
    other = copy.copy(whisper.model)
    other.generation_config = copy.deepcopy(whisper.model.generation_config)
    for name, value in settings.items():
        setattr(other.generation_config, name, value)
        if value is None:
            delattr(other.generation_config, name)
    return Whisper(other, whisper.tokenizer, whisper.feature_extractor, whisper.language)


@pytest.mark.parametrize("name", ["is_multilingual", "no_timestamps_token_id", "lang_to_id"])
def test_a_model_that_does_not_say_how_it_is_decoded_is_refused(whisper, name):
    other = changed_settings(whisper, **{name: None})
    with pytest.raises(LightsaeError, match=f"generation_config has no {name}: take"):
        other.decoding()


def test_an_english_model_has_a_prompt_without_language(whisper, features):
    end = [whisper.decoding().end]
    english = changed_settings(
        whisper, is_multilingual=False, suppress_tokens=[], begin_suppress_tokens=[],
        eos_token_id=end,
    )  # fmt: skip
    prompt = whisper.decoding().prompt
    assert english.decoding()[:2] == ([prompt[0], prompt[-1]], whisper.decoding().end)
    assert transcribe(english, features).avg_logprob.isfinite().all()
    other = Whisper(english.model, english.tokenizer, english.feature_extractor, "fr")
    with pytest.raises(LightsaeError, match="language is 'fr', the model knows English alone"):
        other.decoding()
    several = changed_settings(whisper, eos_token_id=[1, 2])
    with pytest.raises(LightsaeError, match=r"eos_token_id is \[1, 2\], expected one token"):
        several.decoding()


def test_a_feature_extractor_of_another_model_is_refused(whisper):
    transformers = pytest.importorskip("transformers")
    other = transformers.WhisperFeatureExtractor(feature_size=80, hop_length=320, chunk_length=2)
    mixed = Whisper(whisper.model, whisper.tokenizer, other, "en")
    with pytest.raises(LightsaeError, match="gives 80 mels x 100 frames, expected 40 x 100 of the"):
        mixed.features([np.zeros(8, np.float32)])
    slow = copy.copy(whisper.feature_extractor)
    slow.sampling_rate = 8_000
    with pytest.raises(LightsaeError, match=r"the feature extractor: .*sampling rate of 8000"):
        Whisper(whisper.model, whisper.tokenizer, slow, "en").features([np.zeros(8, np.float32)])


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(8, np.int16), r"a recording is \[8\] int16, expected \[samples\] floats"),
        (np.zeros((2, 8), np.float32), r"a recording is \[2, 8\] float32"),
        (np.array([0, np.nan], np.float32), "a recording has samples that are not finite"),
    ],
)
def test_audio_that_is_none_is_refused(whisper, audio, message):
    with pytest.raises(LightsaeError, match=message):
        whisper.features([audio])


def test_a_model_in_training_mode_is_refused(whisper, features):
    layer = whisper.model.model.encoder.layers[0].train()
    layer.dropout = 0.1
    try:
        with pytest.raises(LightsaeError, match=r"encoder\.layers\.0, a .* is in"):
            transcribe(whisper, features)
    finally:
        layer.dropout = 0.0
        whisper.model.eval()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"find_by": "noise"}, "find_by is 'noise', expected one of hallucination, speech"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
    ],
)
def test_options_that_there_are_not(whisper, audios, options, message):
    silent = {split: clips(audios[n : n + 1], split[0]) for n, split in
              enumerate(("find", "choice", "test"))}  # fmt: skip
    with pytest.raises(LightsaeError, match=message):
        HallucinationTask(whisper, {}, silent, silent, **options)


@pytest.mark.parametrize("language", [None, "xx"])
def test_a_multilingual_model_needs_its_language(whisper, features, language):
    other = Whisper(whisper.model, whisper.tokenizer, whisper.feature_extractor, language)
    with pytest.raises(LightsaeError, match="expected a code that the model knows"):
        transcribe(other, features)


def test_recordings_beyond_the_window_are_refused(whisper):
    with pytest.raises(LightsaeError, match=r"has 3\.0 s, the window of the model has 2 s"):
        whisper.features([np.zeros(3 * SECOND, np.float32)])
