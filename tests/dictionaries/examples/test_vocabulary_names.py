"""The rule of the example, and what its input detector counts."""

import gzip
import math
import re
from pathlib import Path

import pytest
import torch

from lightsae.dictionaries.examples.vocabulary_names.anchored import (
    Fitted,
    chosen_of,
    share_of_random,
)
from lightsae.dictionaries.examples.vocabulary_names.detection import detect
from lightsae.dictionaries.examples.vocabulary_names.summary import (
    conclusion,
    table_of,
    told_detection,
)
from lightsae.dictionaries.examples.vocabulary_names.text_model import Activations, read_text
from lightsae.dictionaries.naming.names import name_latents
from lightsae.dictionaries.naming.vocabulary import Vocabulary
from lightsae.errors import LightsaeError
from lightsae.sae import SparseAutoencoder, TopK

WORDS = Vocabulary([f"word{n}" for n in range(10)], torch.eye(10))


def fitted(weight: float, aligned: int, validation: float, test: float | None = None) -> Fitted:
    """Of ten latents as many at their word, the others between two."""
    W_dec = torch.eye(10)
    W_dec[aligned:] += torch.eye(10).roll(1, dims=1)[aligned:]
    sae = SparseAutoencoder(10, 10, TopK(1))
    names = name_latents(W_dec, WORDS)
    scores = {"validation": validation, "test": validation if test is None else test}
    return Fitted(weight, sae, names, scores)


PLAIN = fitted(0, 0, 0.9)


def test_the_best_aligned_within_the_limit_on_validation_is_chosen() -> None:
    near, best = fitted(1, 6, 0.899), fitted(3, 8, 0.896)
    assert chosen_of([PLAIN, near, best, fitted(10, 10, 0.894)]) is best
    assert chosen_of([PLAIN, fitted(10, 10, 0.894)]) is None


@pytest.mark.parametrize(
    ("anchored", "says"),
    [
        ([fitted(3, 8, 0.896)], "Reached: 80%.* lambda 3, .* 80.0% of latents; .* -0.0040 from"),
        ([fitted(3, 8, 0.896, 0.88)], "Not reached: .*from lambda 3 on, which gives up 0.0200"),
        ([fitted(3, 7, 0.9)], "Not reached: .* 70.0% .*No lambda aligns as many"),
        ([fitted(3, 7, 0.9), fitted(9, 9, 0.8)], "Not reached: .*lambda 9 on, .* gives up 0.1000"),
        ([fitted(9, 9, 0.8)], "No lambda keeps R2 within 0.005 of plain on validation"),
    ],
)
def test_the_conclusion_follows_from_the_numbers(anchored: list[Fitted], says: str) -> None:
    found = [PLAIN, *anchored]
    told = conclusion(found, chosen_of(found))
    assert re.search(says, told), told
    assert table_of(found, chosen_of(found)).row_count == len(found)


def test_random_directions_are_aligned_in_few_dimensions_alone() -> None:
    """In a plane with two words, those within acos .8 of either."""
    plane = Vocabulary(["east", "north"], torch.eye(2))
    assert share_of_random(plane, 0) == pytest.approx(4 * math.acos(0.8) / (2 * math.pi), abs=0.02)
    assert share_of_random(Vocabulary(["one"], torch.eye(1, 50)), 0) == 0


def test_a_detector_counts_the_token_and_the_next_one() -> None:
    """Latent 0 fires at its own token, latent 1 before its own, the others never."""
    windows = torch.randint(2, 10, (60, 4), generator=torch.Generator().manual_seed(0))
    windows[:25, 1], windows[25:50, 3] = 0, 1
    rows = torch.zeros(60, 3, 10)
    rows[:25, 0, 0] = 1
    rows[25:50, 1, 1] = 1
    sae = SparseAutoencoder(10, 10, TopK(1), "none")
    with torch.no_grad():
        for weight in (sae.W_enc, sae.W_dec):
            weight.copy_(torch.eye(10))
    one = Fitted(1, sae, name_latents(sae.W_dec.detach(), WORDS), {})
    found = detect(one, Activations(rows.flatten(0, 1), windows), seed=0)
    assert found.latents.tolist() == found.tokens.tolist() == [0, 1]
    assert found.current.tolist() == [1, 0] and found.following.tolist() == [0, 1]
    assert {len(set(each.tolist())) for each in found.rows} == {20}
    assert "2 named latents" in told_detection(found)


def test_without_a_name_there_is_nothing_to_detect() -> None:
    windows = torch.zeros(5, 4, dtype=torch.int64)
    found = detect(PLAIN, Activations(torch.randn(15, 10), windows), seed=0)
    assert told_detection(found) == "No latent has a name and fires often enough to look at."


def test_text_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text.txt.gz"
    path.write_bytes(gzip.compress(b"words"))
    assert read_text(path) == "words"
    path.write_bytes(b"words")
    with pytest.raises(LightsaeError, match=r"text.txt.gz cannot be read as text: Not a gzipped"):
        read_text(path)
