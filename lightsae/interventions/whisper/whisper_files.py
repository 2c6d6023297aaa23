"""`WhisperHallucinations`: the task from folders of recordings, as a configuration names it."""

import csv
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.interventions.whisper.audio import audio_files, read_audio
from lightsae.interventions.whisper.clips import Clip, split_by_recording
from lightsae.interventions.whisper.hallucination_task import FindBy, HallucinationTask
from lightsae.interventions.whisper.whisper_parts import Whisper
from lightsae.sae import SparseAutoencoder


class WhisperHallucinations(HallucinationTask):
    """Steering a Whisper of the Hub or of a folder; see `HallucinationTask`.

    Args:
        model: Name on the Hub or folder of a `WhisperForConditionalGeneration`.
        saes: Of each layer of the encoder, by module name such as "model.encoder.layers.5", the
            folder of its autoencoder.
        nonspeech: Folder of recordings without speech, each at most as long as the window (30 s).
        speech: Folder of recordings with speech, as long at most; none of them is in the other.
        transcripts: Table of what is said there: a line for each recording, its path from `speech`
            on, a tab, the text.
        language: Code such as "en"; a model that knows no other language needs none.
        splits: Shares of recordings for find, choice and test.
        seed: Of the splits.
        find_by: What latents tell apart: "hallucination" or "speech".
        wer_rise: How far the word error rate may rise, absolute.
        batch_size: Clips per forward pass.
        device: Where the model runs.

    Raises:
        LightsaeError: If model, autoencoders, recordings or transcripts are not as described.
    """

    def __init__(
        self,
        model: str,
        saes: Mapping[str, str],
        nonspeech: str,
        speech: str,
        transcripts: str,
        *,
        language: str | None = None,
        splits: Mapping[str, float] | None = None,
        seed: int = 0,
        find_by: FindBy = "hallucination",
        wer_rise: float = 0.03,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> None:
        shares = splits or {"find": 0.4, "choice": 0.3, "test": 0.3}
        silent = audio_files(Path(expanded(nonspeech)))
        texts = read_transcripts(Path(expanded(transcripts)), Path(expanded(speech)))
        _require_apart(silent, texts)
        whisper = Whisper.load(expanded(model), language=language, device=device)
        loaded = {
            layer: SparseAutoencoder.load(expanded(folder)).to(device).eval()
            for layer, folder in saes.items()
        }
        super().__init__(
            whisper,
            loaded,
            _clips(texts, shares, seed),
            _clips(dict.fromkeys(silent, ""), shares, seed),
            find_by=find_by, wer_rise=wer_rise, batch_size=batch_size,
        )  # fmt: skip


def read_transcripts(table: Path, folder: Path) -> dict[Path, str]:
    """Recordings and what is said in them.

    Args:
        table: Lines of a path, a tab and a text, UTF-8.
        folder: What the paths are relative to.

    Returns:
        Of each recording its text, in the order of the table.

    Raises:
        LightsaeError: If the table cannot be read, a line is something else or has no text, or a
            recording is missing, there twice or outside the folder.
    """
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LightsaeError(f"transcripts {table} cannot be read: {error}") from error
    found: dict[Path, str] = {}
    seen: set[Path] = set()
    for number, row in enumerate(rows, 1):
        _require_row(row, f"{table}:{number}")
        path = folder / row[0]
        wrong = _wrong(path, folder, seen)
        if wrong:
            raise LightsaeError(f"{table}:{number}: {path} is {wrong}")
        seen.add(path.resolve())
        found[path] = row[1].strip()
    return found


def _wrong(path: Path, folder: Path, seen: Collection[Path]) -> str:
    """Why a recording cannot be one of a folder; a link there may lead anywhere."""
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
        return f"outside {folder}"
    if not path.is_file():
        return "no file"
    return "there twice" if path.resolve() in seen else ""


def _require_apart(silent: Sequence[Path], texts: Mapping[Path, str]) -> None:
    """Refuse recordings of speech among those without."""
    spoken = {path.resolve() for path in texts}
    for path in silent:
        if path.resolve() in spoken:
            raise LightsaeError(
                f"nonspeech: {path} has a transcript, expected recordings without speech"
            )


def _require_row(row: Sequence[str], where: str) -> None:
    if len(row) != 2 or not row[1].strip():
        raise LightsaeError(f"{where}: expected a path, a tab and a text")


def _clips(
    texts: Mapping[Path, str], shares: Mapping[str, float], seed: int
) -> dict[str, list[Clip]]:
    """Recordings as clips, dealt to splits."""
    names = {str(path): text for path, text in texts.items()}
    return {
        split: [Clip(name, read_audio(Path(name)), names[name]) for name in part]
        for split, part in split_by_recording(sorted(names), shares, seed).items()
    }
