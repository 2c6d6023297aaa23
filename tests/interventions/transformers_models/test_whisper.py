"""Transcripts and both figures against generation and a slow reckoning; the task from files."""

import wave

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("language", [None, "xx"])
def test_a_multilingual_model_needs_its_language(whisper, features, language):
    other = Whisper(whisper.model, whisper.tokenizer, whisper.feature_extractor, language)
    with pytest.raises(LightsaeError, match="expected a code that the model knows"):
        transcribe(other, features)


def test_recordings_beyond_the_window_are_refused(whisper):
    with pytest.raises(LightsaeError, match=r"has 3\.0 s, the window of the model has 2 s"):
        whisper.features([np.zeros(3 * SECOND, np.float32)])
