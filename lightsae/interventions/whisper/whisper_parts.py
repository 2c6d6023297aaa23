"""`Whisper`: a model with its tokenizer and its feature extractor, and how it is decoded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.interventions.whisper.audio import SAMPLING_RATE

_NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")


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
        """Load weights, tokenizer and feature extractor.

        Args:
            name: Of the Hub, or a folder.
            language: Code such as "en".
            device: Where the model runs.

        Raises:
            LightsaeError: If it cannot be loaded.
            MissingExtraError: If transformers is not installed.
        """
        transformers = require("transformers", extra="models")
        try:
            model = transformers.WhisperForConditionalGeneration.from_pretrained(
                name, use_safetensors=True
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
            extractor = transformers.WhisperFeatureExtractor.from_pretrained(name)
        except (OSError, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            raise LightsaeError(f"model {name!r} cannot be loaded: {first}") from error
        return cls(model.to(device).eval(), tokenizer, extractor, language)

    def save(self, folder: Path) -> None:
        """Write what `load` reads.

        Args:
            folder: It takes its place when everything is written; there must be none.
        """
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
            LightsaeError: If one is longer than the window.
        """
        window = self.feature_extractor.n_samples
        longest = max(map(len, audios))
        if longest > window:
            raise LightsaeError(
                f"a recording has {longest / SAMPLING_RATE:.1f} s, the window of the model has "
                f"{window / SAMPLING_RATE:g} s: cut it into clips"
            )
        found = self.feature_extractor(
            list(audios), sampling_rate=SAMPLING_RATE, return_tensors="pt"
        )
        return found["input_features"]

    def decoding(self) -> Decoding:
        """How it is decoded: greedily, without timestamps, with its own suppressed tokens.

        Raises:
            LightsaeError: If it is multilingual and there is no language, or the vocabulary has no
                token for it or for no speech.
        """
        settings: Any = self.model.generation_config
        vocabulary = self.tokenizer.get_vocab()
        no_speech = [vocabulary[name] for name in _NO_SPEECH if name in vocabulary]
        if not no_speech:
            raise LightsaeError(f"the tokenizer has none of {', '.join(_NO_SPEECH)}")
        prompt = [settings.decoder_start_token_id]
        if getattr(settings, "is_multilingual", False):
            prompt += [self._language(settings.lang_to_id), settings.task_to_id["transcribe"]]
        prompt.append(settings.no_timestamps_token_id)
        config: Any = self.model.config
        return Decoding(
            prompt,
            settings.eos_token_id,
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
