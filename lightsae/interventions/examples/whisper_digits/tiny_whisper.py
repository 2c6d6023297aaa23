"""A Whisper of 0.2 million weights that has two seconds and thirty words."""

from lightsae.extras import require
from lightsae.interventions.examples.whisper_digits.digit_clips import SECONDS, WORDS
from lightsae.interventions.whisper import Whisper
from lightsae.interventions.whisper.whisper_parts import Tokenizer

END, START, ENGLISH, TRANSCRIBE, NO_SPEECH, NO_TIMESTAMPS = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|nospeech|>",
    "<|notimestamps|>",
)  # fmt: skip
# Words of labels that nobody says.
CAPTIONS = (
    "music", "applause", "thanks", "for", "watching", "please", "subscribe", "next", "time",
    "silence", "noise", "you", "see", "bye", "the", "end", "and", "laughter", "okay", "so",
)  # fmt: skip
_SPECIAL = (END, START, ENGLISH, TRANSCRIBE, NO_SPEECH, NO_TIMESTAMPS)
_MELS, _HOP = 40, 320


def tiny_whisper(d_model: int, layers: int) -> Whisper:
    """A model with random weights, and its tokenizer and feature extractor, all made here.

    Args:
        d_model: Width.
        layers: Of the encoder; the decoder has two.
    """
    transformers = require("transformers", extra="models")
    number = {token: place for place, token in enumerate((*WORDS, *CAPTIONS, *_SPECIAL))}
    extractor = transformers.WhisperFeatureExtractor(
        feature_size=_MELS, hop_length=_HOP, chunk_length=SECONDS
    )
    config = transformers.WhisperConfig(
        vocab_size=len(number), num_mel_bins=_MELS, d_model=d_model,
        encoder_layers=layers, encoder_attention_heads=4, encoder_ffn_dim=2 * d_model,
        decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=2 * d_model,
        max_source_positions=extractor.nb_max_frames // 2, max_target_positions=16,
        dropout=0.1, init_std=0.08,
        pad_token_id=number[END], bos_token_id=number[END], eos_token_id=number[END],
        decoder_start_token_id=number[START], suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config).eval()
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=number[START], eos_token_id=number[END], pad_token_id=number[END],
        is_multilingual=True, lang_to_id={ENGLISH: number[ENGLISH]},
        task_to_id={"transcribe": number[TRANSCRIBE]},
        no_timestamps_token_id=number[NO_TIMESTAMPS],
        suppress_tokens=[number[token] for token in _SPECIAL[1:]],
        begin_suppress_tokens=[number[END]], max_length=config.max_target_positions,
    )  # fmt: skip
    return Whisper(model, _tokenizer(number), extractor, "en")


def _tokenizer(number: dict[str, int]) -> Tokenizer:
    """A word is a token."""
    tokenizers = require("tokenizers", extra="models")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(number, unk_token=END))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers = require("transformers", extra="models")
    tokenizer: Tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=END, unk_token=END, pad_token=END,
        additional_special_tokens=list(_SPECIAL[1:]),
    )  # fmt: skip
    return tokenizer
