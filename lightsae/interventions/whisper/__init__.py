"""Whisper's hallucinations on audio without speech, and steering against them."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.interventions.whisper.audio import audio_files, read_audio, resampled
    from lightsae.interventions.whisper.clips import Clip, split_by_recording
    from lightsae.interventions.whisper.edit_distance import word_errors
    from lightsae.interventions.whisper.hallucination_task import HallucinationTask
    from lightsae.interventions.whisper.speech_claims import (
        Transcripts,
        claims_speech,
        transcribe,
    )
    from lightsae.interventions.whisper.whisper_files import WhisperHallucinations
    from lightsae.interventions.whisper.whisper_parts import Whisper
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Clip": ".clips",
            "HallucinationTask": ".hallucination_task",
            "Transcripts": ".speech_claims",
            "Whisper": ".whisper_parts",
            "WhisperHallucinations": ".whisper_files",
            "audio_files": ".audio",
            "claims_speech": ".speech_claims",
            "read_audio": ".audio",
            "resampled": ".audio",
            "split_by_recording": ".clips",
            "transcribe": ".speech_claims",
            "word_errors": ".edit_distance",
        },
    )

__all__ = [
    "Clip",
    "HallucinationTask",
    "Transcripts",
    "Whisper",
    "WhisperHallucinations",
    "audio_files",
    "claims_speech",
    "read_audio",
    "resampled",
    "split_by_recording",
    "transcribe",
    "word_errors",
]
