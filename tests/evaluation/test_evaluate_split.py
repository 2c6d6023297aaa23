"""One pass gives what each metric gives on its own over the whole split."""

from pathlib import Path

import pytest
import torch

from lightsae import metrics
from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult, evaluate

from .helpers import (
    D_IN,
    D_SAE,
    SAMPLES,
    K,
    class_shards,
    make_sae,
    open_data,
    patch_shards,
    random_rows,
    shuffled,
    whole_split,
    write_rows,
)

torch.set_num_threads(1)
EXACT = {"rtol": 1e-10, "atol": 1e-12, "equal_nan": True}


def close(found: object, expected: object) -> None:
    found, expected = (torch.as_tensor(each, dtype=torch.float64) for each in (found, expected))
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_shards(tmp_path_factory.mktemp("rows") / "x")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model's rows of the same samples, in another order."""
    sample = shuffled(SAMPLES, seed=1) * 3
    folder = tmp_path_factory.mktemp("rows") / "other"
    return write_rows(folder, random_rows(SAMPLES, 5, seed=9)[sample // 3], sample)


@pytest.fixture(scope="module")
def result(rows: Path, other: Path) -> EvaluationResult:
    found = evaluate(make_sae(), open_data(rows), ["own_input", other], show_progress=False)
    assert isinstance(found, EvaluationResult)
    return found


def test_reconstruction_and_sparsity_are_those_of_the_metrics(
    rows: Path, result: EvaluationResult
) -> None:
    sae = make_sae()
    split = whole_split(sae, open_data(rows))
    pair = {"x_hat": split.x_hat, "x": split.x}
    expected = {
        "r2": metrics.r2(**pair),
        "r2_uniform": metrics.r2_uniform(**pair),
        "nmse": metrics.nmse(**pair),
        "l0": metrics.l0(split.code),
        "hoyer": metrics.hoyer(split.code),
        "dead": metrics.dead_latents(split.code),
        "dead_fraction": metrics.dead_latents(split.code, normalize=True),
        "decoder_coherence": metrics.decoder_coherence(sae.W_dec).largest,
        "decoder_coherence_mean": metrics.decoder_coherence(sae.W_dec).mean,
    }
    for name, value in expected.items():
        close(result.scalars[name], value)
    density = metrics.firing_density(split.code)
    assert result.curves["firing_density"]["count"] == density.counts.tolist()
    assert result.latents["firings"].tolist() == (density.frequency * 30).round().long().tolist()
    assert result.about["rows"] == result.about["images"] == 30


@pytest.mark.parametrize("name", ["own_input", "other"])
def test_monosemanticity_is_that_of_the_metric(
    name: str, rows: Path, result: EvaluationResult
) -> None:
    split = whole_split(make_sae(), open_data(rows))
    own = name == "own_input"
    vectors = split.x if own else random_rows(SAMPLES, 5, seed=9)[split.sample // 3]
    scores = metrics.monosemanticity(split.code, vectors)
    close(result.latents[f"ms/{name}"], scores.scores)
    expected = {
        "mean": scores.mean,
        "median": scores.median,
        "mean_with_dead_as_zero": scores.scores.nan_to_num(0).mean(),
        "scored": scores.n_scored,
        "dead": scores.n_dead,
        "undefined": scores.n_undefined,
        "images": 30,
    }
    for key, value in expected.items():
        close(result.scalars[f"ms_{key}/{name}"], value)
    counts = [result.scalars[f"ms_{key}/{name}"] for key in ("scored", "dead", "undefined")]
    assert sum(counts) == D_SAE


def test_purity_and_top_images_are_those_of_the_metrics(
    rows: Path, result: EvaluationResult
) -> None:
    split = whole_split(make_sae(), open_data(rows))
    purity = metrics.class_purity(split.code, split.label, n_classes=4)
    top = metrics.top_activating(split.code, split.sample, n=16)
    close(result.latents["purity_binary"], purity.binary)
    close(result.latents["purity_weighted"], purity.weighted)
    close(result.scalars["purity_binary"], purity.mean_binary)
    close(result.scalars["purity_weighted"], purity.mean_weighted)
    assert torch.equal(result.latents["main_class"], purity.main_class)
    assert torch.equal(result.latents["top_samples"], top.samples)
    close(result.latents["top_values"], top.values)
    close(result.scalars["uniqueness"], metrics.uniqueness(top.samples).mean)


def test_curves_are_those_of_the_metrics(rows: Path, result: EvaluationResult) -> None:
    sae = make_sae()
    split = whole_split(sae, open_data(rows))
    profile = metrics.rank_profile(sae.pre_activations(split.x), K)
    close(result.curves["rank_profile"]["activation"], profile.activation)
    k = metrics.k_around(K, D_SAE)
    x_hat = torch.stack([sae.decode(sae.encode(split.x, k=each)) for each in k])
    expected = metrics.k_robustness(x_hat=x_hat, x=split.x, k=k)
    curve = result.curves["k_robustness"]
    assert curve["k"] == list(k)
    for name in ("nmse", "r2"):
        close(curve[name], getattr(expected, name))


def test_fewer_rows_are_sampled_the_same_from_any_batches(rows: Path) -> None:
    results = [
        evaluate(make_sae(), open_data(rows, batch_size=size), rank_rows=9, show_progress=False)
        for size in (4, 30)
    ]
    first, second = (each.curves["rank_profile"]["activation"] for each in results)
    close(first, second)
    whole = evaluate(make_sae(), open_data(rows), show_progress=False)
    assert first != whole.curves["rank_profile"]["activation"]


def test_patches_are_pooled_per_image(tmp_path: Path) -> None:
    sae, data = make_sae(), open_data(patch_shards(tmp_path / "p"))
    table = random_rows(SAMPLES, 5, seed=9)
    result = evaluate(sae, data, {"cnn": table, "own_input": "own_input"}, show_progress=False)
    split = whole_split(sae, data)
    pooled = metrics.pool_by_sample(split.code, split.sample)
    images = pooled.sample_index
    assert (result.about["rows"], result.about["images"]) == (120, 30)
    assert result.about["pooling"] == "max"
    own = torch.stack([split.x[split.sample == image].double().mean(0) for image in images])
    for name, vectors in (("cnn", table[images]), ("own_input", own)):
        scores = metrics.monosemanticity(
            pooled.values, pooled.indices, vectors, D_SAE, rows=pooled.rows
        )
        close(result.latents[f"ms/{name}"], scores.scores)
    labels = (images % 4)[pooled.rows]
    purity = metrics.class_purity(pooled.values, pooled.indices, labels, D_SAE, n_classes=4)
    close(result.latents["purity_weighted"], purity.weighted)
    top = metrics.top_activating(split.code, split.sample, n=16)
    assert torch.equal(result.latents["top_samples"], top.samples)
    patches = split.token - 1
    expected = metrics.morans_i(split.code, split.sample, patches, grid=(2, 2))
    close(result.latents["morans_i"], expected.scores)
    close(result.scalars["morans_i"], expected.mean)


def test_mean_pooling_is_recorded(tmp_path: Path) -> None:
    sae, data = make_sae(), open_data(patch_shards(tmp_path / "p", patches=3))
    result = evaluate(sae, data, {"cnn": random_rows(SAMPLES, 5)}, pooling="mean")
    split = whole_split(sae, data)
    pooled = metrics.pool_by_sample(split.code, split.sample, pooling="mean")
    vectors = random_rows(SAMPLES, 5)[pooled.sample_index]
    scores = metrics.monosemanticity(
        pooled.values, pooled.indices, vectors, D_SAE, rows=pooled.rows
    )
    close(result.latents["ms/cnn"], scores.scores)
    assert result.about["pooling"] == "mean"
    assert "morans_i" not in result.scalars  # three patches are no square


def test_copies_of_a_sample_are_images_of_their_own(tmp_path: Path) -> None:
    n = 3 * SAMPLES
    sample, copy = torch.arange(n) % SAMPLES, torch.arange(n) // SAMPLES
    data = open_data(write_rows(tmp_path / "x", random_rows(n), sample, copy * 17))
    vectors = random_rows(n, 5, seed=4)
    order = shuffled(n)
    other = write_rows(tmp_path / "e", vectors[order], sample[order], copy[order])
    sae = make_sae()
    result = evaluate(sae, data, [other], show_progress=False)
    split = whole_split(sae, data)
    rows = split.token // 17 * SAMPLES + split.sample
    scores = metrics.monosemanticity(split.code, vectors[rows])
    close(result.latents["ms/e"], scores.scores)
    assert result.about["images"] == 90
    top = result.latents["top_samples"], result.latents["top_tokens"]
    best = int(result.latents["top_values"][:, 0].argmax())
    row = int(((split.sample == top[0][best, 0]) & (split.token == top[1][best, 0])).nonzero())
    close(result.latents["top_values"][best, 0], split.code.to_dense()[row, best])


def test_one_embedding_serves_all_copies_of_a_sample(tmp_path: Path) -> None:
    n = 2 * SAMPLES
    data = open_data(
        write_rows(tmp_path / "x", random_rows(n), torch.arange(n) // 2, torch.arange(n) % 2)
    )
    vectors = random_rows(SAMPLES, 5, seed=4)
    other = write_rows(tmp_path / "e", vectors, torch.arange(SAMPLES))
    sae = make_sae()
    result = evaluate(sae, data, [other], show_progress=False)
    split = whole_split(sae, data)
    close(result.latents["ms/e"], metrics.monosemanticity(split.code, vectors[split.sample]).scores)


def test_batches_of_any_loader_are_images_of_their_own() -> None:
    sae, x = make_sae(), random_rows(40).double()
    result = evaluate(sae, list(x.split(9)), show_progress=False)
    close(result.latents["ms/own_input"], metrics.monosemanticity(sae.encode(x), x).scores)
    close(result.scalars["r2"], metrics.r2(x_hat=sae(x), x=x))
    assert "top_samples" not in result.latents and "rank_profile" not in result.curves
    assert len(result.about["left_out"]) == 3


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    data = open_data(class_shards(tmp_path / "x", labels=False))
    result = evaluate(make_sae(), data, show_progress=False)
    assert result.about["left_out"] == ["there are no class labels: no class purity, no probes"]
    assert "purity_binary" not in result.scalars and "main_class" not in result.latents


def test_rows_that_nothing_tells_apart_have_no_rank_profile(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "x", random_rows(120), torch.arange(120) // 2, tokens="")
    result = evaluate(make_sae(), open_data(rows), show_progress=False)
    assert "rank_profile" not in result.curves
    assert "rows cannot be told apart" in result.about["left_out"][0]
    assert result.about["images"] == 30


def test_an_input_without_direction_is_left_out_of_monosemanticity(tmp_path: Path) -> None:
    x = random_rows(SAMPLES)
    x[::2] = 0
    sae, data = make_sae(), open_data(write_rows(tmp_path / "x", x, torch.arange(SAMPLES)))
    result = evaluate(sae, data, show_progress=False)
    split = whole_split(sae, data)
    kept = split.x.any(1)
    expected = metrics.monosemanticity(sae.encode(split.x[kept]), split.x[kept])
    close(result.latents["ms/own_input"], expected.scores)
    assert result.scalars["ms_images/own_input"] == int(kept.sum()) < 30


def test_probes_need_labels(tmp_path: Path) -> None:
    data = open_data(class_shards(tmp_path / "x", labels=False))
    with pytest.raises(LightsaeError, match="probes: there are no class labels"):
        evaluate(make_sae(), data, probes=True, show_progress=False)


def test_probes_are_fitted_to_training_images(rows: Path) -> None:
    sae, data = make_sae(), open_data(rows)
    result = evaluate(sae, data, probes=True, show_progress=False)
    train, test = (whole_split(sae, data, split) for split in ("train", "test"))
    k = min(32, D_SAE)
    codes = metrics.LabelledCodes(sae.encode(train.x, k=k), train.label)
    places = (1, 2, 4, 8, 16)
    expected = metrics.truncated_probe(sae.encode(test.x, k=k), test.label, train=codes, k=places)
    # Fits stop before the last digit, and rows come in another order.
    assert result.scalars["probe_auc"] == pytest.approx(float(expected.auc), abs=0.02)
    assert result.curves["truncated_probe"]["k"] == expected.k.tolist()
    assert result.scalars["probe_train_images"] == len(train.x)
    assert {"k_sparse_probe_top1_at_1", "probe_top1_at_16"} <= result.scalars.keys()


def test_the_split_is_a_choice(rows: Path) -> None:
    sae, data = make_sae(), open_data(rows)
    result = evaluate(sae, data, split="train", show_progress=False)
    split = whole_split(sae, data, "train")
    close(result.scalars["r2"], metrics.r2(x_hat=split.x_hat, x=split.x))
    assert (result.about["split"], result.about["d_in"]) == ("train", D_IN)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank_rows": 0}, r"evaluation\.rank_rows is 0, expected at least 1"),
        ({"pooling": "sum"}, r"evaluation\.pooling is 'sum', expected one of max, mean"),
    ],
)
def test_options_that_cannot_be_are_refused(rows: Path, options: dict, message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        evaluate(make_sae(), open_data(rows), show_progress=False, **options)
