import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.metrics import top_activating, uniqueness
from lightsae.metrics.redundancy import uniqueness as module
from tests.metrics import references


def assert_same(actual: torch.Tensor, expected: list[float]) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("dense", [False, True], ids=["pairs", "dense"])
@pytest.mark.parametrize("pairs", [1, 50, 2**22])
@pytest.mark.parametrize("n", [1, 3, 8])
def test_it_is_the_overlap_of_sets_whatever_the_memory(
    n: int, pairs: int, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAIRS", pairs)
    monkeypatch.setattr(module, "_is_dense", lambda *_: dense)
    generator = torch.Generator().manual_seed(n)
    values = torch.rand(70, 3, generator=generator, dtype=torch.float64)
    indices = torch.rand(70, 15, generator=generator).topk(3, dim=1).indices
    sample = torch.randint(40, (70,), generator=generator)
    top = top_activating(values, indices, sample, d_sae=17, n=n)
    scores = uniqueness(top.samples)
    sets = references.top_images(references.dense(values, indices, 17), sample, n)
    assert_same(scores.scores, references.uniqueness(sets))
    assert_same(scores.mean, scores.scores[:15].mean().item())


def test_both_ways_find_the_same_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = torch.rand(40, 9, generator=torch.Generator().manual_seed(0)).argsort(1)[:, :3]
    samples[7] = -1
    found = []
    for dense in (False, True):
        monkeypatch.setattr(module, "_is_dense", lambda *_, dense=dense: dense)
        found.append(uniqueness(samples))
    assert torch.equal(found[0].nearest, found[1].nearest)
    assert torch.equal(found[0].scores[:7], found[1].scores[:7])


@pytest.mark.parametrize(("n_images", "dense"), [(64, True), (20_000, False)])
def test_a_dense_matrix_is_of_few_images_alone(n_images: int, dense: bool) -> None:
    per_image = torch.full((n_images,), 8192 * 16 // n_images)
    assert module._is_dense(per_image, 8192) == dense


@pytest.mark.parametrize("dense", [False, True], ids=["pairs", "dense"])
def test_same_images_score_zero_and_name_each_other(
    dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_is_dense", lambda *_: dense)
    scores = uniqueness(torch.tensor([[1, 2], [2, 1], [3, 4], [4, 5], [-1, -1]]))
    assert_same(scores.scores, [0, 0, 2 / 3, 2 / 3, torch.nan])
    assert scores.nearest.tolist() == [1, 0, 3, 2, -1]


def test_latents_without_images_have_none() -> None:
    scores = uniqueness(torch.full((3, 2), -1))
    assert scores.scores.isnan().all() and scores.mean.isnan()
    assert scores.nearest.tolist() == [-1, -1, -1]


def test_a_single_latent_is_unique() -> None:
    assert uniqueness(torch.tensor([[4, 7]])).scores.tolist() == [1.0]


def test_what_is_no_list_of_images_is_named() -> None:
    with pytest.raises(LightsaeError, match=r"samples has shape \[2\], expected \[d_sae, n\]"):
        uniqueness(torch.zeros(2).long())
    with pytest.raises(LightsaeError, match=r"samples is torch\.float32, expected integers"):
        uniqueness(torch.zeros(2, 2))
