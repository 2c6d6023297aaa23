"""Whether a model claims to hear speech: no_speech_prob and avg_logprob of greedy transcripts."""

from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightsae.extras import require
from lightsae.interventions.eval_mode import require_eval
from lightsae.interventions.whisper.whisper_parts import Decoding, Whisper

NO_SPEECH_THRESHOLD = 0.6
LOGPROB_THRESHOLD = -1.0


class Transcripts(NamedTuple):
    """What was heard in a batch of clips.

    Attributes:
        tokens: After the prompt; from the end on the end's token, [B, length] int64.
        no_speech_prob: Probability of `<|nospeech|>` right after the start token, before any token
            is suppressed, [B] float32.
        avg_logprob: Sum of the log-probabilities of the chosen tokens, the end's among them,
            divided by their number without the end plus 1, [B] float32 (openai/whisper).
    """

    tokens: Tensor
    no_speech_prob: Tensor
    avg_logprob: Tensor

    @property
    def claims(self) -> Tensor:
        """Of which clips speech is claimed, [B] bool; see `claims_speech`."""
        return claims_speech(self.no_speech_prob, self.avg_logprob)


def claims_speech(no_speech_prob: Tensor, avg_logprob: Tensor) -> Tensor:
    """Where a transcript counts as speech: no_speech_prob < 0.6 or avg_logprob > -1.

    On audio without speech such a claim is a hallucination (arXiv 2606.07473). Ours: so is a figure
    that is no number, or a model that an edit breaks would be given credit for its silence.

    Args:
        no_speech_prob: [B].
        avg_logprob: [B], natural logarithm.

    Returns:
        [B] bool.

    Example:
        >>> claims_speech(torch.tensor([0.9, 0.9, 0.1]), torch.tensor([-2.0, -0.5, -2.0])).tolist()
        [False, True, True]
    """
    silent = (no_speech_prob >= NO_SPEECH_THRESHOLD) & (avg_logprob <= LOGPROB_THRESHOLD)
    return ~silent


@torch.no_grad()
def transcribe(whisper: Whisper, features: Tensor) -> Transcripts:
    """Transcribe clips greedily, without timestamps, at temperature 0.

    Args:
        whisper: The model and its tokenizer; hooks on the model act, as it is called as usual.
        features: Log-mel spectrograms, [B, mels, frames].

    Returns:
        Tokens and both figures, on the model's device.

    Raises:
        LightsaeError: If the model is in training mode, or `Whisper.decoding` raises it.
    """
    require_eval(whisper.model, "whisper.model")
    decoding = whisper.decoding()
    model: Any = whisper.model
    parameter = next(model.parameters())
    heard = model.get_encoder()(features.to(parameter))
    ids = torch.tensor([decoding.prompt], device=parameter.device).repeat(len(features), 1)
    return _Greedy(model, heard, decoding).transcripts(ids)


class _Greedy:
    """Greedy decoding of a batch, a token a step."""

    def __init__(self, model: Any, heard: Any, decoding: Decoding) -> None:
        self.model, self.heard, self.decoding = model, heard, decoding
        transformers = require("transformers", extra="models")
        cache = transformers.EncoderDecoderCache(
            transformers.DynamicCache(), transformers.DynamicCache()
        )
        # Named `cache` since transformers 5.24.
        known = signature(model.forward).parameters
        self.cache = {"cache" if "cache" in known else "past_key_values": cache}

    def transcripts(self, ids: Tensor) -> Transcripts:
        """Decode until every transcript has ended.

        Args:
            ids: The prompt, [B, length].
        """
        decoding, batch = self.decoding, len(ids)
        logits = self._logits(ids)
        no_speech_prob = logits[:, 0].softmax(-1)[:, decoding.no_speech]
        total = torch.zeros(batch, device=ids.device)
        length = torch.ones(batch, device=ids.device)
        ended = torch.zeros(batch, dtype=torch.bool, device=ids.device)
        tokens: list[Tensor] = []
        while True:
            logprob, chosen = self._allowed(logits[:, -1], first=not tokens).max(-1)
            total += logprob.where(~ended, 0.0)
            chosen = chosen.where(~ended, decoding.end)
            tokens.append(chosen)
            ended |= chosen == decoding.end
            length += ~ended
            if bool(ended.all()) or len(tokens) == decoding.max_new:
                return Transcripts(torch.stack(tokens, dim=1), no_speech_prob, total / length)
            logits = self._logits(chosen[:, None])

    def _logits(self, ids: Tensor) -> Tensor:
        """Logits after each of the next tokens, [B, length, vocabulary] float32."""
        logits: Tensor = self.model(
            encoder_outputs=self.heard, decoder_input_ids=ids, use_cache=True, **self.cache
        ).logits
        return logits.float()

    def _allowed(self, logits: Tensor, first: bool) -> Tensor:
        """Log-probabilities among the tokens that may be chosen, [B, vocabulary]."""
        barred = self.decoding.suppressed + (self.decoding.suppressed_first if first else [])
        logits = logits.clone()
        logits[:, barred] = -torch.inf
        return logits.log_softmax(-1)
