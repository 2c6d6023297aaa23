"""Where latents fire: against loops over every row."""

import numpy as np
import pytest
import torch

from lightsae.activations.loading.activation_batch import ActivationBatch
from lightsae.activations.shards.manifest import Manifest
from lightsae.report.latents.composition import activation_histogram, class_make_up
from lightsae.report.latents.examples import choose_examples, strongest
from lightsae.report.latents.firing_pass import drawn_images, firing_pass
from lightsae.report.latents.heat_maps import PatchGrid, heat_maps, patch_grid
from lightsae.report.latents.image_keys import copy_of, image_keys, sample_of
from lightsae.report.latents.neighbours import (
    cosine_of_pairs,
    nearest_by_co_firing,
    nearest_by_decoder,
    nearest_in_other,
)
from lightsae.sae import BatchTopK, SparseAutoencoder, TopK

D_IN, D_SAE, K, IMAGES, PATCHES = 6, 20, 3, 31, 4


@pytest.fixture
def sae() -> SparseAutoencoder:
    torch.manual_seed(0)
    return SparseAutoencoder(D_IN, D_SAE, TopK(K)).double()


@pytest.fixture
def batches() -> list[ActivationBatch]:
    """Rows of images in a random order, so that an image's rows lie in several batches."""
    generator = torch.Generator().manual_seed(1)
    sample = torch.arange(IMAGES).repeat_interleave(PATCHES) * 2
    token = torch.arange(PATCHES).repeat(IMAGES)
    order = torch.randperm(len(sample), generator=generator)
    x = torch.randn(len(sample), D_IN, generator=generator, dtype=torch.float64)
    label = (sample // 2) % 5
    parts = zip(x.split(17), sample[order].split(17), token[order].split(17),
                label[order].split(17), strict=True)  # fmt: skip
    return [ActivationBatch(*part) for part in parts]


def every_activation(sae, batches):
    """(latent, sample, token, label, value) of every latent that fires on a row."""
    found = []
    for batch in batches:
        code = sae.encode(batch.activations)
        for row in range(len(code)):
            for value, latent in zip(code.values[row].tolist(), code.indices[row].tolist(),
                                     strict=True):  # fmt: skip
                if value > 0:
                    place = [int(x[row]) for x in batch[1:4]]
                    found.append((latent, *place, value))
    return found


def passed(sae, batches, keys=None, copies=False):
    if keys is None:
        keys = np.unique(np.concatenate([
            image_keys(b.sample_index.numpy(), b.token_index.numpy() if copies else None)
            for b in batches]))  # fmt: skip
    rows = sum(len(batch.activations) for batch in batches)
    return firing_pass(sae, batches, keys, copies=copies, rows=rows, of_images=len(keys))


@pytest.mark.parametrize("copies", [False, True], ids=["images", "copies"])
def test_images_of_each_latent_come_strongest_first(sae, batches, copies):
    firings = passed(sae, batches, copies=copies)
    for latent in range(D_SAE):
        best = {}
        for one, sample, token, _, value in every_activation(sae, batches):
            if one == latent:
                key = int(image_keys(np.array([sample]), np.array([token * copies]))[0])
                best[key] = max(value, best.get(key, 0))
        order = sorted(best, key=lambda key: (-np.float32(best[key]), key))
        images, values = firings.of(latent)
        assert firings.keys[images].tolist() == order
        np.testing.assert_allclose(values, [best[key] for key in order], rtol=1e-6)


def test_labels_belong_to_their_images(sae, batches):
    firings = passed(sae, batches)
    assert firings.labels is not None
    assert firings.labels.tolist() == [(key // 2) % 5 for key in sample_of(firings.keys).tolist()]


def test_images_that_are_not_drawn_are_left_out(sae, batches):
    keys = image_keys(np.array([0, 6, 14]), None)
    firings = passed(sae, batches, keys)
    assert firings.keys.tolist() == keys.tolist()
    assert set(firings.images.tolist()) <= {0, 1, 2}


def test_drawn_images_are_the_same_each_time_and_in_order():
    keys = np.arange(10_000)
    drawn = drawn_images(keys, 10_000, 32, most_pairs=32 * 600)
    assert len(drawn) == 600
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, drawn_images(keys, 10_000, 32, most_pairs=32 * 600))


def test_nothing_fires(sae):
    firings = firing_pass(sae, [], np.arange(3), copies=False, rows=0, of_images=3)
    assert firings.d_sae == D_SAE
    assert firings.labels is None
    assert (choose_examples(firings, 2, 1, 1).keys == -1).all()
    assert activation_histogram(firings)[0].sum() == 0
    assert (class_make_up(firings)[0] == -1).all()
    assert (nearest_by_co_firing(firings.rows, D_SAE).latents == -1).all()


def test_examples_are_the_strongest_the_middle_and_the_weakest(sae, batches):
    firings = passed(sae, batches)
    examples = choose_examples(firings, top=4, middle=2, bottom=3)
    for latent in range(D_SAE):
        images, values = firings.of(latent)
        keys, count = firings.keys[images].tolist(), len(images)
        row = examples.keys[latent].tolist()
        assert row[:4] == keys[:4] + [-1] * max(0, 4 - count)
        weakest = keys[max(4, count - 3) :]
        assert row[6:] == weakest + [-1] * (3 - len(weakest))
        shown = [key for key in row if key >= 0]
        assert len(set(shown)) == len(shown)
        middle = [key for key in row[4:6] if key >= 0]
        assert len(middle) == min(2, max(0, count - 7))
        for key in middle:
            assert 4 <= keys.index(key) < count - 3
        np.testing.assert_allclose(
            examples.values[latent][examples.keys[latent] >= 0],
            [values[keys.index(key)] for key in shown],
        )


def test_the_strongest_of_the_whole_split_take_the_place_of_those_of_a_part(sae, batches):
    firings = passed(sae, batches)
    keys = np.full((D_SAE, 2), 9)
    whole = strongest(keys, torch.full((D_SAE, 2), 5.0), 2)
    examples = choose_examples(firings, 3, 0, 1, whole)
    assert (examples.keys[:, :2] == 9).all()
    assert (examples.keys[:, 2] == -1).all()
    assert (examples.values[:, :2] == 5).all()


def test_histogram_and_classes(sae, batches):
    firings = passed(sae, batches)
    counts, largest = activation_histogram(firings, bins=5)
    classes, found, total = class_make_up(firings, most=3)
    for latent in range(D_SAE):
        images, values = firings.of(latent)
        top = values.max(initial=0)
        assert largest[latent] == top
        expected = [0] * 5
        for value in values:
            expected[min(int(value / top * 5), 4)] += 1
        assert counts[latent].tolist() == expected
        labels = firings.labels[images].tolist()
        ranked = sorted(set(labels), key=lambda label: (-labels.count(label), label))[:3]
        assert classes[latent].tolist() == ranked + [-1] * (3 - len(ranked))
        assert found[latent].tolist() == [labels.count(x) for x in ranked] + [0] * (3 - len(ranked))
        assert total[latent] == len(labels)


def test_neighbours_by_firing_together(sae, batches):
    firings = passed(sae, batches)
    rows = [{latent for latent in row if latent >= 0} for row in firings.rows.tolist()]
    assert len(rows) == IMAGES * PATCHES
    near = nearest_by_co_firing(firings.rows, D_SAE, n=4)
    for latent in range(D_SAE):
        mine = {i for i, row in enumerate(rows) if latent in row}
        likeness = {}
        for other in set(range(D_SAE)) - {latent}:
            theirs = {i for i, row in enumerate(rows) if other in row}
            if len(mine & theirs) >= 2:
                likeness[other] = len(mine & theirs) / len(mine | theirs)
        expected = sorted(likeness.values(), reverse=True)[:4]
        expected += [0.0] * (4 - len(expected))
        assert near.likeness[latent].tolist() == pytest.approx(expected)
        for other, value in zip(near.latents[latent].tolist(), expected, strict=True):
            assert (other == -1) == (value == 0)
            assert other == -1 or likeness[other] == pytest.approx(value)


def test_neighbours_by_decoder():
    torch.manual_seed(2)
    decoder, other = torch.randn(9, 4), torch.randn(5, 4)
    cosine = torch.nn.functional.cosine_similarity(decoder[:, None], decoder[None], dim=2)
    cosine.fill_diagonal_(-2)
    near = nearest_by_decoder(decoder, n=3)
    torch.testing.assert_close(near.likeness, cosine.sort(1, descending=True).values[:, :3])
    across = torch.nn.functional.cosine_similarity(decoder[:, None], other[None], dim=2)
    assert nearest_in_other(decoder, other).latents[:, 0].tolist() == across.argmax(1).tolist()
    same = cosine_of_pairs(decoder, decoder.flip(0))
    assert same[4].item() == pytest.approx(1)


def test_a_zero_decoder_row_is_like_nothing():
    near = nearest_by_decoder(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]), n=1)
    assert near.likeness[0].item() == 0


def test_heat_maps_hold_every_patch_that_fires(sae, batches):
    firings = passed(sae, batches)
    examples = choose_examples(firings, 3, 1, 1)
    grid = PatchGrid(2, 2, first=0)
    maps = heat_maps(sae, batches, examples, grid)
    every = every_activation(sae, batches)
    width = examples.keys.shape[1]
    for latent in range(D_SAE):
        largest = examples.values[latent].max(initial=0)
        for place in range(width):
            key = examples.keys[latent, place]
            sample = int(sample_of(np.array([key]))[0])
            expected = {
                token: np.clip(round(value / largest * 255), 1, 255)
                for one, at, token, _, value in every
                if key >= 0 and one == latent and at == sample
            }
            part = slice(*maps.begins[latent * width + place : latent * width + place + 2])
            found = dict(zip(maps.patches[part].tolist(), maps.values[part].tolist(), strict=True))
            assert found.keys() == expected.keys()
            for token, value in found.items():
                assert abs(value - expected[token]) <= 1


def test_rows_of_a_rule_with_a_threshold_have_unequal_numbers_of_latents(batches):
    sae = SparseAutoencoder(D_IN, D_SAE, BatchTopK(K)).double()
    sae.selection.threshold.fill_(1.2)
    firings = passed(sae, batches)
    codes = [sae.encode(batch.activations) for batch in batches]
    assert len({code.values.shape[1] for code in codes}) > 1
    fires = [(code.to_dense() > 0).sum(dim=1) for code in codes]
    assert np.array_equal((firings.rows >= 0).sum(axis=1), torch.cat(fires))
    assert firings.rows.shape[1] == max(map(int, torch.cat(fires)))
    assert nearest_by_co_firing(firings.rows, D_SAE).latents.shape == (D_SAE, 6)


def test_too_many_patches_leave_the_last_examples_without_a_map(sae, batches):
    firings = passed(sae, batches)
    examples = choose_examples(firings, 4, 0, 0)
    grid = PatchGrid(2, 2, first=0)
    whole = heat_maps(sae, batches, examples, grid)
    part = heat_maps(sae, batches, examples, grid, most_patches=len(whole.patches) // 2)
    assert 0 < len(part.patches) <= len(whole.patches) // 2
    counts = np.diff(part.begins).reshape(D_SAE, 4)
    assert counts[:, 0].sum() == np.diff(whole.begins).reshape(D_SAE, 4)[:, 0].sum()
    assert counts[:, 3].sum() == 0


@pytest.mark.parametrize(
    ("tokens", "settings", "last", "expected"),
    [
        ("class", {}, 0, None),
        ("patch", {}, 196, PatchGrid(14, 14, 1)),
        ("patch", {}, 195, PatchGrid(14, 14, 0)),
        ("patch", {}, 260, PatchGrid(16, 16, 5)),
        ("all", {"prefix_tokens": 5}, 260, PatchGrid(16, 16, 5)),
        ("patch", {"preparation": {"input_size": [3, 8, 16]}}, 2 * 14 * 14, PatchGrid(14, 28, 1)),
        ("patch", {}, 42, None),
    ],
)  # fmt: skip
def test_patch_grids(tokens, settings, last, expected):
    manifest = Manifest(d_in=4, dtype="float16", tokens=tokens, settings=settings)
    assert patch_grid(manifest, last) == expected


def test_image_keys_keep_the_order_of_samples():
    samples, tokens = np.array([0, 5, 5, -1, 7]), np.array([3, 0, 2, 4, 0])
    keys = image_keys(samples, tokens)
    assert (np.diff(keys[[0, 1, 2, 4]]) > 0).all()
    assert sample_of(keys).tolist() == samples.tolist()
    assert copy_of(keys).tolist() == [3, 0, 2, 0, 0]
