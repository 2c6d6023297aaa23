"""`Whisper`: a model with its tokenizer and its feature extractor, and how it is decoded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from lightsae.activations.shards.dtypes import Array
from lightsae.error_messages import one_line, reason
from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.interventions.pretrained import load_pretrained
from lightsae.interventions.whisper.audio import SAMPLING_RATE

_NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
_SETTINGS = ("decoder_start_token_id", "eos_token_id", "is_multilingual", "no_timestamps_token_id")


class Tokenizer(Protocol):
    """What is needed of a tokenizer of transformers."""

    def get_vocab(self) -> dict[str, int]:
        """Of each token its number."""
        ...

    def batch_decode(self, sequences: Tensor, *, skip_special_tokens: bool) -> list[str]:
        """Texts of sequences of tokens."""
        ...


class FeatureExtractor(Protocol):
    """What is needed of a `WhisperFeatureExtractor`."""

    n_samples: int

    def __call__(
        self, audio: Sequence[Array], *, sampling_rate: int, return_tensors: str
    ) -> Mapping[str, Tensor]:
        """Log-mel spectrograms, under the key input_features."""
        ...


class Decoding(NamedTuple):
    """Tokens that steer greedy decoding.

    Attributes:
        prompt: Start, then language and task where the model knows them, then no timestamps.
        end: Ends a transcript.
        no_speech: Whose probability at the start says that nobody speaks.
        suppressed: Never chosen.
        suppressed_first: Not chosen as the first.
        max_new: Longest transcript in tokens.
    """

    prompt: list[int]
    end: int
    no_speech: int
    suppressed: list[int]
    suppressed_first: list[int]
    max_new: int


@dataclass(frozen=True)
class Whisper:
    """A Whisper of any size.

    Attributes:
        model: A `WhisperForConditionalGeneration` in eval mode.
        tokenizer: Its tokenizer.
        feature_extractor: Its `WhisperFeatureExtractor`.
        language: Code such as "en", which a multilingual model needs.
    """

    model: nn.Module
    tokenizer: Tokenizer
    feature_extractor: FeatureExtractor
    language: str | None = None

    @classmethod
    def load(cls, name: str, *, language: str | None = None, device: str = "cpu") -> "Whisper":
        """Load weights, in float32 whatever they were saved in, tokenizer and feature extractor.

        Args:
            name: Of the Hub, or a folder.
            language: Code such as "en".
            device: Where the model runs.

        Raises:
            LightsaeError: If one of them cannot be loaded, or weights are missing.
            MissingExtraError: If transformers is not installed.
        """
        transformers = require("transformers", extra="models")
        kind = transformers.WhisperForConditionalGeneration
        model = load_pretrained(kind, name, expected="a Whisper", device=device)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
            extractor = transformers.WhisperFeatureExtractor.from_pretrained(name)
        except Exception as error:
            raise LightsaeError(
                f"model {name!r}: expected a tokenizer and a feature extractor beside it: "
                f"{reason(error)}"
            ) from error
        return cls(model, tokenizer, extractor, language)

    def save(self, folder: Path) -> None:
        """Write what `load` reads.

        Args:
            folder: It takes its place when everything is written; there must be none.

        Raises:
            LightsaeError: If there is one.
        """
        if folder.exists():
            raise LightsaeError(f"{folder} is there already, expected a folder that is not")
        unfinished = folder.with_name(f".{folder.name}.tmp")
        for part in (self.model, self.tokenizer, self.feature_extractor):
            save: Any = part
            save.save_pretrained(unfinished)
        unfinished.replace(folder)

    def features(self, audios: Sequence[Array]) -> Tensor:
        """Log-mel spectrograms of the window of the model; what is shorter is padded with silence.

        Args:
            audios: [samples] float32 each, at 16 kHz.

        Returns:
            [B, mels, frames] float32.

        Raises:
            LightsaeError: If one is longer than the window or is not finite floats of one axis, or
                the feature extractor is that of another model.
        """
        for audio in audios:
            self.require_audio(audio)
        try:
            extracted = self.feature_extractor(
                list(audios), sampling_rate=SAMPLING_RATE, return_tensors="pt"
            )
        except ValueError as error:
            raise LightsaeError(f"the feature extractor: {one_line(str(error))}") from error
        found = extracted["input_features"]
        config: Any = self.model.config
        wanted = config.num_mel_bins, 2 * config.max_source_positions
        if tuple(found.shape[1:]) != wanted:
            raise LightsaeError(
                f"the feature extractor gives {found.shape[1]} mels x {found.shape[2]} frames, "
                f"expected {wanted[0]} x {wanted[1]} of the model"
            )
        return found

    def require_audio(self, audio: Array, name: str = "a recording") -> None:
        """Refuse what the model cannot hear.

        Args:
            audio: [samples] floats at 16 kHz.
            name: For messages.

        Raises:
            LightsaeError: If it is longer than the window, or not finite floats of one axis.
        """
        if audio.ndim != 1 or audio.dtype.kind != "f":
            raise LightsaeError(
                f"{name} is {list(audio.shape)} {audio.dtype}, expected [samples] floats in [-1, 1]"
            )
        if not np.isfinite(audio).all():
            raise LightsaeError(f"{name} has samples that are not finite")
        window = self.feature_extractor.n_samples
        if len(audio) > window:
            raise LightsaeError(
                f"{name} has {len(audio) / SAMPLING_RATE:.1f} s, the window of the model has "
                f"{window / SAMPLING_RATE:g} s: cut it into clips"
            )

    def decoding(self) -> Decoding:
        """How it is decoded: greedily, without timestamps, with its own suppressed tokens.

        Raises:
            LightsaeError: If it is multilingual and there is no language, or the vocabulary has no
                token for it or for no speech, or generation_config does not say how it is decoded.
        """
        settings: Any = self.model.generation_config
        several = getattr(settings, "is_multilingual", False)
        wanted = (*_SETTINGS, "lang_to_id", "task_to_id") if several else _SETTINGS
        for name in wanted:
            # Of a model that was fine-tuned and saved without; a guess would be another prompt.
            if getattr(settings, name, None) is None:
                raise LightsaeError(
                    f"generation_config has no {name}: take generation_config.json of the model "
                    "that this one was made of"
                )
        vocabulary = self.tokenizer.get_vocab()
        no_speech = [vocabulary[name] for name in _NO_SPEECH if name in vocabulary]
        if not no_speech:
            raise LightsaeError(f"the tokenizer has none of {', '.join(_NO_SPEECH)}")
        prompt = [settings.decoder_start_token_id]
        if settings.is_multilingual:
            prompt += [self._language(settings.lang_to_id), settings.task_to_id["transcribe"]]
        elif self.language not in (None, "en"):
            raise LightsaeError(f"language is {self.language!r}, the model knows English alone")
        prompt.append(settings.no_timestamps_token_id)
        config: Any = self.model.config
        return Decoding(
            prompt,
            _only(settings.eos_token_id),
            no_speech[0],
            list(settings.suppress_tokens or []),
            list(settings.begin_suppress_tokens or []),
            config.max_target_positions // 2,
        )

    def _language(self, known: Mapping[str, int]) -> int:
        token = f"<|{self.language}|>"
        if self.language is None or token not in known:
            raise LightsaeError(
                f"language is {self.language!r}, expected a code that the model knows, such as 'en'"
            )
        return known[token]


def _only(end: int | list[int]) -> int:
    """The token that ends a transcript, where generation_config may have several."""
    if isinstance(end, int):
        return end
    if len(end) != 1:
        raise LightsaeError(f"generation_config: eos_token_id is {end}, expected one token")
    return end[0]
