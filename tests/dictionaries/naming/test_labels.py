"""Latents called by the class or attribute that they fire on."""

import math

import pytest
import torch
from torch import Tensor

from lightsae.dictionaries import LabelCounts, name_by_labels
from lightsae.dictionaries.naming import labels as module
from lightsae.errors import LightsaeError
from lightsae.sae import SparseCode

D_SAE, LABELS = 11, 4


def random_code(rows: int, k: int = 3) -> SparseCode:
    indices = torch.rand(rows, D_SAE).argsort(dim=1)[:, :k]
    return SparseCode(torch.rand(rows, k).mul(2).sub(0.5).relu(), indices, D_SAE)


def counted(batches: list[tuple[SparseCode, Tensor]], n_labels: int = LABELS) -> LabelCounts:
    counts = LabelCounts(D_SAE, n_labels)
    for code, labels in batches:
        counts.update(code, labels)
    return counts


@pytest.mark.parametrize("kind", ["classes", "attributes"])
def test_purity_and_share_are_their_definitions(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENTRIES", 7)
    code = random_code(60)
    if kind == "classes":
        labels = torch.randint(-1, LABELS, (60,))
        has = torch.nn.functional.one_hot(labels + 1, LABELS + 1)[:, 1:].bool()
        kept = labels >= 0
    else:
        labels = has = torch.rand(60, LABELS) < torch.tensor([0.1, 0.5, 0.0, 1.0])
        kept = torch.ones(60, dtype=torch.bool)
    parts = [(slice(0, 17),), (slice(17, 60),)]
    batches = [
        (SparseCode(code.values[part], code.indices[part], D_SAE), labels[part])
        for (part,) in parts
    ]
    counts = counted(batches)
    fires, purity, share = code.to_dense() > 0, counts.purity(), counts.share()
    for latent in range(D_SAE):
        for label in range(LABELS):
            firing = (fires[:, latent] & kept).sum().item()
            both = (fires[:, latent] & kept & has[:, label]).sum().item()
            base = has[kept, label].double().mean().item()
            expected = math.nan
            if firing and 0 < base < 1:
                expected = (both / firing - base) / (1 - base)
            assert purity[latent, label].item() == pytest.approx(expected, abs=1e-6, nan_ok=True)
            rows = has[kept, label].sum().item()
            expected = both / rows if rows else math.nan
            assert share[latent, label].item() == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_a_latent_of_one_class_is_called_by_it_however_rare() -> None:
    labels = torch.arange(400) % LABELS
    indices = labels.unsqueeze(1).clone()
    values = torch.zeros(400, 1)
    values[:200] = 1  # half of each class
    counts = counted([(SparseCode(values, indices, D_SAE), labels)])
    found = name_by_labels(counts, ["cat", "dog", "elm", "oak"])
    assert found.names[:LABELS] == ["cat", "dog", "elm", "oak"] and found.measure == "purity"
    assert found.similarity[:LABELS].tolist() == [1] * LABELS
    assert found.alignment_rate == 1 and found.coverage == 1
    assert found.alive.tolist() == [True] * LABELS + [False] * (D_SAE - LABELS)


def test_an_attribute_that_most_rows_have_names_nothing_by_chance() -> None:
    has = torch.zeros(1000, 2, dtype=torch.bool)
    has[:800, 0] = True
    code = SparseCode(torch.ones(1000, 1), torch.zeros(1000, 1, dtype=torch.long), D_SAE)
    found = name_by_labels(counted([(code, has)], 2), ["young", "nobody"])
    assert found.names[0] is None and found.nearest[0] == "young"
    assert found.similarity[0].item() == pytest.approx(0, abs=1e-6)


def test_of_few_firings_nothing_is_concluded() -> None:
    values, indices = torch.ones(9, 1), torch.zeros(9, 1, dtype=torch.long)
    rest = SparseCode(torch.ones(9, 1), indices + 1, D_SAE)
    counts = counted(
        [
            (SparseCode(values, indices, D_SAE), torch.zeros(9, dtype=torch.long)),
            (rest, torch.ones(9, dtype=torch.long)),
        ],
        2,
    )
    assert name_by_labels(counts, ["a", "b"]).nearest[:2] == [None, None]
    assert name_by_labels(counts, ["a", "b"], min_firings=9).names[:2] == ["a", "b"]
    assert name_by_labels(counts, ["a", "b"]).alive[:2].all()


def test_the_tokens_of_one_sample_are_no_evidence() -> None:
    """Latent 0 fires on 20 tokens of one image, latent 1 on one token of each of 20."""
    images, labels = torch.arange(40).repeat_interleave(20), torch.arange(40).ge(20).long()
    values = torch.zeros(800, 2)
    values[images == 3, 0] = 1
    values[20 * torch.arange(20), 1] = 1
    code = SparseCode(values, torch.tensor([[0, 1]]).expand(800, 2), D_SAE)
    of_rows, of_samples = LabelCounts(D_SAE, 2), LabelCounts(D_SAE, 2)
    of_rows.update(code, labels[images])
    for part in torch.randperm(800).split(190):  # shuffled rows, as shards have them
        some = SparseCode(code.values[part], code.indices[part], D_SAE)
        of_samples.update(some, labels[images][part], images[part])
    assert name_by_labels(of_rows, ["a", "b"]).names[:2] == ["a", "a"]
    assert name_by_labels(of_samples, ["a", "b"]).nearest[:2] == [None, "a"]
    assert of_samples.samples[:2].tolist() == [1, 10] and of_samples.firings[0] == 20
    torch.testing.assert_close(of_samples.purity(), of_rows.purity(), equal_nan=True)
    with pytest.raises(LightsaeError, match="min_firings is 11, samples were counted up to enough"):
        name_by_labels(of_samples, ["a", "b"], min_firings=11)
    with pytest.raises(LightsaeError, match="samples: expected for all batches or for none"):
        of_samples.update(code, labels[images])
    with pytest.raises(LightsaeError, match=r"samples is \[3\], expected \[800\]"):
        of_samples.update(code, labels[images], torch.zeros(3, dtype=torch.long))


def test_samples_are_counted_once_up_to_enough() -> None:
    torch.manual_seed(0)
    counts = LabelCounts(D_SAE, LABELS, enough=6)
    seen: list[set[int]] = [set() for _ in range(D_SAE)]
    for rows in (0, 9, 30, 30):
        code, samples = random_code(rows), torch.randint(-3, 12, (rows,))
        counts.update(code, torch.zeros(rows, dtype=torch.long), samples)
        for row, latent in (code.to_dense() > 0).nonzero().tolist():
            seen[latent].add(int(samples[row]))
        assert counts.samples.tolist() == [min(6, len(each)) for each in seen]


def test_names_do_not_hang_on_how_many_latents_are_ranked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = counted([(random_code(200), torch.randint(LABELS, (200,)))])
    whole = name_by_labels(counts, ["a", "b", "c", "d"], candidates=3)
    monkeypatch.setattr(module, "_LATENTS", 4)
    parts = name_by_labels(counts, ["a", "b", "c", "d"], candidates=3)
    assert torch.equal(parts.candidates, whole.candidates)
    torch.testing.assert_close(parts.scores, whole.scores, equal_nan=True, rtol=0, atol=0)


def test_candidates_are_sorted_and_the_first_of_equals_is_first() -> None:
    labels = torch.tensor([0] * 5 + [1] * 5 + [2] * 10)
    code = SparseCode(torch.ones(20, 1), torch.zeros(20, 1, dtype=torch.long), D_SAE)
    found = name_by_labels(counted([(code, labels)], 3), ["a", "b", "c"], candidates=7)
    assert [word for word, _ in found.candidates_of(0)] == ["a", "b", "c"]


def test_random_codes_get_next_to_no_names() -> None:
    torch.manual_seed(0)
    indices = torch.randint(0, 500, (4000, 2))
    labels = torch.randint(0, 10, (4000,))
    counts = LabelCounts(500, 10)
    counts.update(SparseCode(torch.ones(4000, 2), indices, 500), labels)
    found = name_by_labels(counts, [str(label) for label in range(10)])
    assert counts.firings.double().mean() == 16 and found.alignment_rate < 0.01


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (torch.zeros(3, dtype=torch.long), r"labels is \[3\], expected classes \[5\]"),
        (torch.full((5,), 4), r"labels must lie in \[-1, n_labels = 4\)"),
        (torch.zeros(5), "labels is torch.float32, expected integers"),
        (torch.zeros(5, 3, dtype=torch.bool), r"labels is bool \[5, 3\], expected \[5, 4\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Tensor, told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        counted([(random_code(5), labels)])


def test_a_code_of_another_dictionary_is_refused() -> None:
    with pytest.raises(LightsaeError, match="the code has d_sae = 11, expected 5"):
        LabelCounts(5, 2).update(random_code(3), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"floor": 0.0}, "floor is 0.0"),
        ({"min_firings": 0}, "min_firings = 0"),
        ({"candidates": 0}, "candidates = 0"),
        ({"words": ["a"]}, "words are 1, 1 of them different, expected 4"),
        ({"words": ["a", "a", "b", "c"]}, "3 of them different"),
    ],
)
def test_options_that_are_none_are_refused(options: dict[str, object], told: str) -> None:
    counts = LabelCounts(D_SAE, LABELS)
    with pytest.raises(LightsaeError, match=told):
        name_by_labels(counts, **({"words": ["a", "b", "c", "d"]} | options))  # type: ignore[arg-type]
