"""What each metric is defined as: loops over rows, latents and pairs, in float64."""

import math
from itertools import combinations

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from torch import Tensor

Grid = tuple[int, int]


def dense(values: Tensor, indices: Tensor, d_sae: int) -> Tensor:
    """Codes as [rows, d_sae], float64."""
    return torch.zeros(len(values), d_sae, dtype=torch.float64).scatter_add(
        1, indices.long(), values.double()
    )


def nmse(x_hat: Tensor, x: Tensor) -> float:
    ratios = [
        sum((b - a) ** 2 for a, b in zip(row_hat, row, strict=True)) / sum(b * b for b in row)
        for row_hat, row in zip(x_hat.tolist(), x.tolist(), strict=True)
        if any(row)
    ]
    return sum(ratios) / len(ratios) if ratios else math.nan


def r2_uniform(x_hat: Tensor, x: Tensor) -> float:
    found = []
    for column_hat, column in zip(x_hat.T.tolist(), x.T.tolist(), strict=True):
        mean = math.fsum(column) / len(column)
        total = math.fsum((b - mean) ** 2 for b in column)
        missed = math.fsum((b - a) ** 2 for a, b in zip(column_hat, column, strict=True))
        if len(set(column)) > 1:
            found.append(1 - missed / total)
    return sum(found) / len(found) if found else math.nan


def r2(x_hat: Tensor, x: Tensor) -> float:
    mean = x.mean(0)
    total = sum(float(((row - mean) ** 2).sum()) for row in x)
    missed = sum(float(((b - a) ** 2).sum()) for a, b in zip(x_hat, x, strict=True))
    return 1 - missed / total


def hoyer(code: Tensor) -> float:
    root, found = math.sqrt(code.shape[1]), []
    for row in code.tolist():
        if any(row):
            ratio = sum(map(abs, row)) / math.sqrt(sum(a * a for a in row))
            found.append((root - ratio) / (root - 1))
    return sum(found) / len(found) if found else math.nan


def firing_density(code: Tensor) -> list[int]:
    """Latents in each quarter of a decade from 1e-7 to 1."""
    counts = [0] * 28
    for column in code.T.tolist():
        share = sum(a > 0 for a in column) / len(column)
        if share > 0:
            counts[min(math.floor(4 * math.log10(share)) + 28, 27)] += 1
    return counts


def decoder_coherence(W_dec: Tensor) -> tuple[float, float, list[float]]:
    """Largest and mean |cosine| of two rows, and the largest of each row."""
    rows = [row for row in W_dec.double().tolist() if any(row)]
    found, nearest = [], [0.0] * len(rows)
    for i, j in combinations(range(len(rows)), 2):
        product = sum(a * b for a, b in zip(rows[i], rows[j], strict=True))
        cosine = abs(product) / math.hypot(*rows[i]) / math.hypot(*rows[j])
        found.append(cosine)
        nearest[i], nearest[j] = max(nearest[i], cosine), max(nearest[j], cosine)
    return max(found), sum(found) / len(found), nearest


def class_purity(code: Tensor, labels: Tensor, n_classes: int) -> dict[str, list[float]]:
    binary, weighted, main = [], [], []
    for column in code.T.tolist():
        firings, mass = [0] * n_classes, [0.0] * n_classes
        for a, label in zip(column, labels.tolist(), strict=True):
            firings[label] += a > 0
            mass[label] += a
        c = firings.index(max(firings))
        alive = sum(firings) > 0
        binary.append(firings[c] / sum(firings) if alive else math.nan)
        weighted.append(mass[c] / sum(mass) if alive else math.nan)
        main.append(c if alive else -1)
    return {"binary": binary, "weighted": weighted, "main_class": main}


def rank_profile(pre_activations: Tensor, ranks: int) -> list[float]:
    rows = [sorted((max(p, 0.0) for p in row), reverse=True) for row in pre_activations.tolist()]
    return [sum(row[rank] for row in rows) / len(rows) for rank in range(ranks)]


def monosemanticity(code: Tensor, embeddings: Tensor) -> list[float]:
    """The sum over all pairs of images, as Pach et al. write it; NaN without a pair of weights."""
    unit = [[b / math.hypot(*row) for b in row] for row in embeddings.double().tolist()]
    scores = []
    for column in code.T.tolist():
        low, high = min(column), max(column)
        w = [(a - low) / (high - low) if high > low else 0.0 for a in column]
        above = below = 0.0
        for i, j in combinations(range(len(w)), 2):
            cosine = sum(a * b for a, b in zip(unit[i], unit[j], strict=True))
            above += w[i] * w[j] * cosine
            below += w[i] * w[j]
        scores.append(above / below if below > 0 else math.nan)
    return scores


def morans_i(code: Tensor, sample: Tensor, patch: Tensor, grid: Grid) -> dict[str, list[float]]:
    """Mean over the images on which the activation varies, of the double sum over patches."""
    height, width = grid
    scores, counts = [], []
    for column in code.T.tolist():
        found = []
        for image in set(sample.tolist()):
            a = [0.0] * (height * width)
            for value, owner, place in zip(column, sample.tolist(), patch.tolist(), strict=True):
                if owner == image:
                    a[place] = value
            if len(set(a)) > 1:
                found.append(_morans_i_of_image(a, height, width))
        scores.append(sum(found) / len(found) if found else math.nan)
        counts.append(len(found))
    return {"scores": scores, "images": counts}


def _morans_i_of_image(a: list[float], height: int, width: int) -> float:
    n = len(a)
    mean = sum(a) / n
    weights = above = 0.0
    for p in range(n):
        for q in range(n):
            rows, columns = abs(p // width - q // width), abs(p % width - q % width)
            if rows + columns == 1:
                weights += 1
                above += (a[p] - mean) * (a[q] - mean)
    assert weights == 2 * (height * (width - 1) + width * (height - 1))
    return n / weights * above / sum((b - mean) ** 2 for b in a)


def top_images(code: Tensor, sample: Tensor, n: int) -> list[set[int]]:
    """The images of the n largest activations of each latent, ties to the lowest image."""
    found = []
    for column in code.T.tolist():
        best: dict[int, float] = {}
        for a, image in zip(column, sample.tolist(), strict=True):
            if a > 0:
                best[image] = max(a, best.get(image, 0.0))
        found.append(set(sorted(best, key=lambda image: (-best[image], image))[:n]))
    return found


def uniqueness(tops: list[set[int]]) -> list[float]:
    return [
        1 - max(len(own & other) / len(own | other) for j, other in enumerate(tops) if j != i)
        if own
        else math.nan
        for i, own in enumerate(tops)
    ]


def spearman(left: list[float], right: list[float]) -> float:
    kept = [(a, b) for a, b in zip(left, right, strict=True) if not math.isnan(b)]
    ranks = [rankdata(column) for column in zip(*kept, strict=True)]
    return float(np.corrcoef(*ranks)[0, 1])


def downstream_loss(
    head: torch.nn.Module, labels: Tensor, x_hat: Tensor, x: Tensor
) -> dict[str, float]:
    def loss(rows: Tensor) -> float:
        logits = head(rows).double().tolist()
        return sum(
            math.log(sum(map(math.exp, row))) - row[label]
            for row, label in zip(logits, labels.tolist(), strict=True)
        ) / len(rows)

    with torch.no_grad():
        original, hat, mean = loss(x), loss(x_hat), loss(x.mean(0).expand_as(x))
    return {
        "original": original,
        "reconstructed": hat,
        "mean_ablated": mean,
        "recovered": (mean - hat) / (mean - original),
    }


def truncated(code: Tensor, k: int) -> Tensor:
    """The k largest of each row, ties to the lowest latent."""
    kept = torch.zeros_like(code)
    for row in range(len(code)):
        best = sorted(range(code.shape[1]), key=lambda latent: (-float(code[row, latent]), latent))
        kept[row, best[:k]] = code[row, best[:k]]
    return kept


def probe_accuracy(train: Tensor, y: Tensor, test: Tensor, y_test: Tensor) -> float:
    scale = math.sqrt(float(train.square().sum()) / len(train))
    model = LogisticRegression(max_iter=1000).fit(train.numpy() / scale, y.numpy())
    return float((model.predict(test.numpy() / scale) == y_test.numpy()).mean())


def anova_f(code: Tensor, labels: Tensor) -> list[float]:
    """Mean square between classes over that within, of each latent; -1 without a spread."""
    found = []
    classes = sorted(set(labels.tolist()))
    for column in code.T:
        groups = [column[labels == c] for c in classes]
        between = sum(len(g) * float((g.mean() - column.mean()) ** 2) for g in groups)
        within = sum(float((g - g.mean()).square().sum()) for g in groups)
        if len(set(column.tolist())) == 1:
            found.append(-1.0)
        else:
            between /= len(classes) - 1
            within /= len(column) - len(classes)
            found.append(between / within if within else math.inf)
    return found
