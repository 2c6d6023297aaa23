"""Latents called by the nearest direction of a vocabulary."""

import json
import math
from pathlib import Path

import pytest
import torch

from lightsae.dictionaries import LatentNames, Vocabulary, name_latents, nearest_cosines
from lightsae.dictionaries.naming import candidates
from lightsae.dictionaries.naming.candidates import nearest_candidates
from lightsae.errors import LightsaeError


def words(vectors: torch.Tensor) -> Vocabulary:
    return Vocabulary([f"word {row}" for row in range(len(vectors))], vectors)


def test_a_dictionary_of_vocabulary_rows_is_named_right() -> None:
    vocabulary = words(torch.randn(500, 64))
    rows = torch.randperm(500)[:300]
    scales = torch.rand(300, 1) * 10 + 0.01
    found = name_latents(scales * vocabulary.vectors[rows], vocabulary)
    assert found.names == [f"word {row}" for row in rows.tolist()]
    assert found.alignment_rate == 1 and found.coverage == 300 / 500


def test_names_end_at_the_cutoff_and_the_nearest_is_kept() -> None:
    angles = torch.tensor([0.0, 30.0, 60.0, 180.0]).deg2rad()
    W_dec = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = name_latents(W_dec, words(torch.tensor([[1.0, 0.0]])), cutoff=0.8)
    assert found.names == ["word 0", "word 0", None, None]
    assert found.nearest == ["word 0"] * 4
    assert found.alignment_rate == 0.5 and found.coverage == 1
    assert found.with_cutoff(0.4).names == ["word 0", "word 0", "word 0", None]
    torch.testing.assert_close(found.similarity, angles.cos())


def test_only_alive_latents_are_named_and_counted() -> None:
    W_dec = torch.eye(4)
    alive = torch.tensor([True, True, False, False])
    found = name_latents(W_dec, words(torch.eye(4)[1:]), alive=alive)
    assert found.names == [None, "word 0", None, None]
    assert found.alignment_rate == 1 / 2 and found.coverage == 1 / 3
    nobody = name_latents(W_dec, words(torch.eye(4)), alive=torch.zeros(4, dtype=torch.bool))
    assert math.isnan(nobody.alignment_rate) and nobody.coverage == 0


def test_a_latent_without_direction_has_no_word() -> None:
    found = name_latents(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), words(torch.eye(2)))
    assert found.nearest == [None, "word 1"] and found.alive.tolist() == [False, True]
    assert found.candidates_of(0) == [] and found.alignment_rate == 1


@pytest.mark.parametrize("n", [1, 3, 12])
def test_candidates_in_blocks_equal_a_full_sort(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(candidates, "_ROWS", 5)
    monkeypatch.setattr(candidates, "_OTHERS", 4)
    W, others = torch.randn(23, 3), torch.randn(6, 3)[torch.randint(6, (10,))]
    W[7], others[4] = 0, 0
    found = nearest_candidates(W, others, n)
    for row, direction in enumerate(W.double()):
        ranked = [
            (-torch.nn.functional.cosine_similarity(direction, other, dim=0).item(), place)
            for place, other in enumerate(others.double())
            if direction.any() and other.any()
        ]
        ranked = sorted((round(cosine, 9), place) for cosine, place in ranked)[:n]
        places = [place for _, place in ranked]
        assert (found.index[row][found.index[row] >= 0]).tolist() == places
        assert found.index[row].tolist() == places + [-1] * (n - len(places))
        torch.testing.assert_close(
            found.similarity[row, : len(places)],
            torch.tensor([-cosine for cosine, _ in ranked]),
            atol=1e-6,
            rtol=0,
        )
    assert found.similarity.isnan().equal(found.index < 0)


def test_the_first_candidate_is_the_nearest_direction() -> None:
    W, others = torch.randn(50, 8), torch.randn(70, 8)
    one, several = nearest_cosines(W, others), nearest_candidates(W, others, 4)
    assert torch.equal(one.index, several.index[:, 0])
    torch.testing.assert_close(one.similarity, several.similarity[:, 0])


def test_an_empty_dictionary_has_no_names() -> None:
    found = name_latents(torch.zeros(0, 2), words(torch.eye(2)))
    assert found.names == [] and math.isnan(found.alignment_rate)


@pytest.mark.parametrize(
    ("W_dec", "options", "told"),
    [
        (torch.ones(2, 3), {}, "W_dec has width 3, the vocabulary 2"),
        (torch.ones(2, 2), {"cutoff": 1.5}, "cutoff is 1.5"),
        (torch.ones(2, 2), {"cutoff": 1.0}, r"cutoff is 1.0, expected a cosine in \(-1, 1\)"),
        (torch.ones(2, 2), {"cutoff": math.nan}, "cutoff is nan"),
        (torch.ones(2, 2), {"candidates": 0}, "candidates is 0"),
        (torch.ones(2, 2), {"alive": torch.ones(3, dtype=torch.bool)}, "alive is"),
        (torch.full((2, 2), torch.nan), {}, "W must be finite"),
    ],
)
def test_what_does_not_fit_is_refused(
    W_dec: torch.Tensor, options: dict[str, object], told: str
) -> None:
    with pytest.raises(LightsaeError, match=told):
        name_latents(W_dec, words(torch.eye(2)), **options)  # type: ignore[arg-type]


def test_a_file_gives_back_the_names(tmp_path: Path) -> None:
    W_dec = torch.randn(40, 6)
    W_dec[3] = 0
    vocabulary = Vocabulary([f"w{i}" for i in range(9)], torch.randn(9, 6), {"model": "tiny"})
    made = name_latents(W_dec, vocabulary, cutoff=0.5, candidates=3)
    made.save(tmp_path)
    found = LatentNames.load(tmp_path)
    assert found.words == made.words and found.names == made.names
    assert found.about == {"model": "tiny"} and found.cutoff == 0.5
    assert torch.equal(found.candidates, made.candidates)
    assert torch.equal(found.scores.nan_to_num(9), made.scores.nan_to_num(9))
    assert torch.equal(found.alive, made.alive)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("format", 2, "no file of latent names of format 1"),
        ("cutoff", "0.8", "cutoff is no float"),
        ("measure", "guess", "measure is 'guess'"),
        ("words", [1], "words is no list of strings"),
        ("words", [], "words is empty"),
        ("alive", [2], "alive is no list of 0 and 1"),
        ("alive", [1, 1], "alive is torch.bool"),
        ("candidates", [[7]], "candidates must lie in"),
        ("candidates", [[0.5]], r"candidates\[0\] is \[0.5\], expected numbers"),
        ("candidates", [[10**30]], "candidates has a number that is too large"),
        ("candidates", [[]], r"candidates\[0\] is no list of 1"),
        ("scores", [["a"]], "expected numbers"),
        ("scores", [[None]], "scores must be finite where there is a candidate"),
        ("more", 1, "no file of latent names"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, key: str, value: object, told: str) -> None:
    name_latents(torch.eye(1), words(torch.eye(1))).save(tmp_path)
    path = tmp_path / "latent_names.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(LightsaeError, match=told) as raised:
        LatentNames.load(tmp_path)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


def test_a_latent_that_is_not_there_has_no_candidates() -> None:
    with pytest.raises(LightsaeError, match="latent is 5, expected one of 1"):
        name_latents(torch.eye(1), words(torch.eye(1))).candidates_of(5)
