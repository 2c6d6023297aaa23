"""`HallucinationTask`: fewer hallucinations on audio without speech, at words heard as before."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Literal, NamedTuple, get_args

import torch
import xxhash
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.interventions.pretrained import config_hash, text_hash
from lightsae.interventions.steering import Examples, GuardLimit, Measured, SteeringTask
from lightsae.interventions.steering.task import Batch, Split
from lightsae.interventions.whisper.clips import SPLITS, Clip, Clips, require_splits
from lightsae.interventions.whisper.edit_distance import word_errors
from lightsae.interventions.whisper.speech_claims import transcribe
from lightsae.interventions.whisper.whisper_parts import Whisper
from lightsae.sae import SparseAutoencoder

FindBy = Literal["hallucination", "speech"]
_MEASURED = ("choice", "test")


class Heard(NamedTuple):
    """What was heard in clips.

    Attributes:
        claims: Of which speech is claimed, [n] bool.
        texts: Transcripts; nothing where no speech is claimed, as openai/whisper leaves them out.
    """

    claims: Tensor
    texts: list[str]


class HallucinationTask(SteeringTask):
    """Steering a Whisper's encoder against hallucinations (arXiv 2606.07473).

    The target is the hallucination rate: the share of clips without speech in which speech is
    claimed. The guard is the word error rate on clips with speech; Ours: where no speech is claimed
    there, all words count as lost. Clips of a recording are one sample of a metric, so that
    intervals are over recordings.

    Log-mel spectrograms are computed once and kept: 0.96 MB for 30 s of 80 mels.

    Args:
        whisper: The model.
        saes: Autoencoders of layers of its encoder, by module name such as
            "model.encoder.layers.5".
        speech: Clips with speech and their text, by split: choice and test, and find where latents
            are found by speech.
        nonspeech: Clips without speech by split: find, choice, test.
        find_by: What latents of the split "find" tell apart: clips without speech on which the
            model hallucinates from those on which it does not, or speech from no speech.
        wer_rise: How far the word error rate may rise, absolute.
        batch_size: Clips per forward pass.

    Raises:
        LightsaeError: If a split is missing, a recording is in two, or a clip is none that the
            model can hear.
    """

    target = "hallucination_rate"
    target_falls = True

    def __init__(
        self,
        whisper: Whisper,
        saes: Mapping[str, SparseAutoencoder],
        speech: Clips,
        nonspeech: Clips,
        *,
        find_by: FindBy = "hallucination",
        wer_rise: float = 0.03,
        batch_size: int = 16,
    ) -> None:
        if find_by not in get_args(FindBy):
            known = ", ".join(get_args(FindBy))
            raise LightsaeError(f"find_by is {find_by!r}, expected one of {known}")
        if batch_size < 1:
            raise LightsaeError(f"batch_size is {batch_size}, expected at least 1")
        require_splits(nonspeech, "nonspeech")
        require_splits(speech, "speech", SPLITS if find_by == "speech" else _MEASURED)
        self.whisper, self.model, self.saes = whisper, whisper.model, saes
        self.guards = {"wer": GuardLimit(rise=wer_rise)}
        self.clips = {"speech": speech, "nonspeech": nonspeech}
        self.find_by, self.batch_size = find_by, batch_size
        self._features: dict[tuple[str, str], list[Tensor]] = {}
        for clip in chain(*speech.values(), *nonspeech.values()):
            whisper.require_audio(clip.audio, f"recording {clip.recording!r}")

    def hashes(self) -> dict[str, str]:
        """Of the clips, and of how they are heard and decoded."""
        return {kind: _hash_of(parts) for kind, parts in self.clips.items()} | {
            "config": config_hash(self.whisper.model),
            "decoding": text_hash(repr(self.whisper.decoding())),
            "find_by": self.find_by,
        }

    def examples(self) -> Examples:
        """Spectrograms of the split "find", with labels as `find_by` says.

        Raises:
            LightsaeError: If the model hallucinates on all of its clips or on none.
        """
        batches = self._batches("nonspeech", "find")
        if self.find_by == "speech":
            spoken = self._batches("speech", "find")
            sizes = [sum(map(len, each)) for each in (batches, spoken)]
            labels = torch.arange(2).repeat_interleave(torch.tensor(sizes))
            return Examples([*batches, *spoken], labels.numpy())
        claims = self.hear("nonspeech", "find").claims
        if claims.all() or not claims.any():
            raise LightsaeError(
                f"the model hallucinates on {'all' if claims.any() else 'none'} of "
                f"{len(claims)} clips of split 'find': give others, or find_by: speech"
            )
        return Examples(batches, claims.long().numpy())

    def forward(self, model: nn.Module, batch: Batch) -> object:
        """Run the encoder alone."""
        assert isinstance(batch, Tensor)
        encoder = model.get_submodule("model.encoder")
        return encoder(batch.to(next(model.parameters())))

    def measure(self, split: Split) -> dict[str, Measured]:
        """Hallucination rate, word error rate, and the share of speech that is not claimed."""
        silent, spoken = self.hear("nonspeech", split), self.hear("speech", split)
        clips = self.clips["speech"][split]
        errors, words = word_errors(spoken.texts, [clip.text for clip in clips])
        missed = (~spoken.claims).float()
        return {
            self.target: _by_recording(
                self.clips["nonspeech"][split], silent.claims.float(), torch.ones(len(silent.texts))
            ),
            "wer": _by_recording(clips, errors, words),
            "missed_speech": _by_recording(clips, missed, torch.ones_like(missed)),
        }

    def hear(self, kind: Literal["speech", "nonspeech"], split: str) -> Heard:
        """Transcribe the clips of a split, under whatever hooks are attached.

        Args:
            kind: With or without speech.
            split: find, choice or test.
        """
        claims, texts = [], []
        for batch in self._batches(kind, split):
            found = transcribe(self.whisper, batch)
            claimed = found.claims.cpu()
            heard = self.whisper.tokenizer.batch_decode(found.tokens, skip_special_tokens=True)
            claims.append(claimed)
            texts += [
                text if claim else "" for text, claim in zip(heard, claimed.tolist(), strict=True)
            ]
        return Heard(torch.cat(claims), texts)

    def _batches(self, kind: str, split: str) -> list[Tensor]:
        key = kind, split
        if key not in self._features:
            clips = self.clips[kind][split]
            parts = [
                clips[start : start + self.batch_size]
                for start in range(0, len(clips), self.batch_size)
            ]
            self._features[key] = [
                self.whisper.features([clip.audio for clip in part]) for part in parts
            ]
        return self._features[key]


def _by_recording(clips: Sequence[Clip], amounts: Tensor, counts: Tensor) -> Measured:
    """Sums over the clips of each recording, in the order of first mention."""
    names = list(dict.fromkeys(clip.recording for clip in clips))
    place = {name: number for number, name in enumerate(names)}
    index = torch.tensor([place[clip.recording] for clip in clips])
    return Measured(*(_sums(each, index, len(names)) for each in (amounts, counts)))


def _sums(values: Tensor, index: Tensor, n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.float64).index_add_(0, index, values.double())


def _hash_of(clips: Clips) -> str:
    """Of audio, texts and recordings in their order, split by split."""
    state = xxhash.xxh3_64()
    for split, part in sorted(clips.items()):
        for clip in part:
            state.update("\0".join((split, clip.recording, clip.text, "")).encode())
            state.update(clip.audio.tobytes())
    return state.hexdigest()
