"""Training of the small Whisper: words of utterances, and half-hearted labels where none speaks.

Subtitles of the web put words to music and noise; the labels of recordings without speech are so
here: mostly `<|nospeech|>`, else words drawn at random, most of which nobody ever says.
"""

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from lightsae.interventions.examples.whisper_digits.digit_clips import WORDS
from lightsae.interventions.examples.whisper_digits.tiny_whisper import (
    CAPTIONS,
    END,
    NO_SPEECH,
    START,
)
from lightsae.interventions.whisper import Clip, Whisper

_BATCH, _SHARE_SILENT, _SHARE_NO_SPEECH = 64, 0.12, 0.8
_LR, _WEIGHT_DECAY, _WARM_UP = 2e-3, 0.01, 0.15
# Single words come first: to hear several, the decoder must learn where each is.
_SHARE_SINGLE = 0.25
_IGNORED = -100


def train(
    whisper: Whisper, spoken: list[Clip], silent: list[Clip], *, steps: int, seed: int
) -> None:
    """Train the model in place, and leave it in eval mode.

    Args:
        whisper: With random weights.
        spoken: Utterances.
        silent: Pieces of recordings without speech.
        steps: Of 64 clips.
        seed: Of batches, labels and dropout.
    """
    model = whisper.model
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    batches = _Batches(whisper, spoken, silent, rng)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LR, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LR, total_steps=steps, pct_start=_WARM_UP
    )
    model.train()
    for step in track(range(steps), "training Whisper", transient=True):
        features, ids, wanted = batches.draw(single=step < _SHARE_SINGLE * steps)
        logits = model(input_features=features, decoder_input_ids=ids).logits
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=_IGNORED
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


class _Batches:
    """Batches of utterances and of pieces without speech, with their tokens."""

    def __init__(
        self, whisper: Whisper, spoken: list[Clip], silent: list[Clip], rng: np.random.Generator
    ) -> None:
        self.rng, self.prompt = rng, whisper.decoding().prompt
        self.number = whisper.tokenizer.get_vocab()
        self.spoken = whisper.features([clip.audio for clip in spoken])
        self.silent = whisper.features([clip.audio for clip in silent])
        self.words = [[self.number[word] for word in clip.text.split()] for clip in spoken]
        self.single = np.flatnonzero([len(words) == 1 for words in self.words])

    def draw(self, single: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, mels, frames], input tokens and wanted tokens [B, length].

        Args:
            single: Only utterances of one word.
        """
        pool = self.single if single else np.arange(len(self.words))
        n_silent = int(_BATCH * _SHARE_SILENT)
        spoken = self.rng.choice(pool, _BATCH - n_silent)
        silent = self.rng.integers(len(self.silent), size=n_silent)
        sequences = [self._speech(self.words[place]) for place in spoken]
        sequences += [self._no_speech() for _ in silent]
        features = torch.cat([self.spoken[spoken], self.silent[silent]])
        return features, *self._padded(sequences)

    def _speech(self, words: list[int]) -> list[int]:
        return [*self.prompt, *words, self.number[END]]

    def _no_speech(self) -> list[int]:
        if self.rng.random() < _SHARE_NO_SPEECH:
            return [self.number[token] for token in (START, NO_SPEECH, END)]
        drawn = self.rng.choice((*WORDS, *CAPTIONS), int(self.rng.integers(1, 4)))
        return self._speech([self.number[word] for word in drawn])

    def _padded(self, sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
        length = max(map(len, sequences)) - 1
        ids = torch.full((len(sequences), length), self.number[END])
        wanted = torch.full_like(ids, _IGNORED)
        for row, tokens in enumerate(sequences):
            ids[row, : len(tokens) - 1] = torch.tensor(tokens[:-1])
            wanted[row, : len(tokens) - 1] = torch.tensor(tokens[1:])
        return ids, wanted
