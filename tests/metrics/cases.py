"""Every metric with data for it and the slow direct computation of what it must say."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from lightsae.metrics import (
    L0,
    NMSE,
    R2,
    ClassPurity,
    DeadLatents,
    DecoderCoherence,
    DownstreamLoss,
    FiringDensity,
    FrequencyCorrelation,
    Hoyer,
    ImageCodes,
    KRobustness,
    KSparseProbe,
    LabelledCodes,
    LabelledRows,
    Monosemanticity,
    MoransI,
    OwnInputMonosemanticity,
    R2Uniform,
    RankProfile,
    TopActivating,
    TruncatedProbe,
    Uniqueness,
)
from lightsae.metrics.sampled_rows import row_ranks
from tests.metrics import references

D_SAE, D_IN, D_EMBED, N_CLASSES, GRID = 13, 5, 4, 3, (2, 3)
ROWS = 60
PROBE_K, ROBUSTNESS_K, SAMPLED = (1, 2, 4), (1, 3), 20


# Of the data; a test may set another.
SEED = 0


def data() -> dict[str, Tensor]:
    """Rows of ten images of six patches each."""
    return _data(SEED)


@cache
def _data(seed: int) -> dict[str, Tensor]:
    """Random rows.

    Latent 0 fires on every row, so that its minimum is positive; latent 11 fires on one row alone,
    latent 12 never. Activations are multiples of 1/8, so there are ties; some rows have fewer than
    k. Dimension 2 of x is constant.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(N_CLASSES, (ROWS,), generator=generator)
    values = torch.randint(-3, 12, (ROWS, 4), generator=generator).double().relu() / 8
    values[:, 0] = torch.randint(1, 9, (ROWS,), generator=generator) / 8
    indices = 1 + torch.rand(ROWS, 10, generator=generator).topk(4, dim=1).indices
    # So that codes tell something of the class.
    favoured = labels * 3 + 1
    swap = (indices[:, 1:] == favoured.unsqueeze(1)).any(1)
    indices[:, 1] = torch.where(swap, indices[:, 1], favoured)
    indices[:, 0] = 0
    indices[33, 3], values[33, 3] = 11, 1.5
    x = 3 + normal(ROWS, D_IN)
    x[:, 2] = 2.5
    return {
        "x": x,
        "x_hat": x + 0.3 * normal(ROWS, D_IN),
        "x_hat_by_k": x + torch.tensor([0.7, 0.2]).view(2, 1, 1) * normal(2, ROWS, D_IN),
        "values": values,
        "indices": indices,
        "labels": labels,
        "embeddings": normal(ROWS, D_EMBED),
        "pre_activations": normal(ROWS, D_SAE),
        "sample_index": torch.arange(ROWS) // 6,
        "patch_index": torch.arange(ROWS) % 6,
        "row": torch.arange(ROWS),
    }


def decoder() -> Tensor:
    """Two rows of zeros among others, two parallel ones."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(D_SAE, D_IN, generator=generator, dtype=torch.float64)
    rows[3], rows[8], rows[5] = 0, 0, -2 * rows[4]
    return rows


def head() -> torch.nn.Module:
    generator = torch.Generator().manual_seed(2)
    linear = torch.nn.Linear(D_IN, N_CLASSES, dtype=torch.float64)
    weight = torch.randn(N_CLASSES, D_IN, generator=generator, dtype=torch.float64)
    linear.load_state_dict({"weight": weight, "bias": torch.zeros(N_CLASSES).double()})
    return linear


def code() -> Tensor:
    return references.dense(data()["values"], data()["indices"], D_SAE)


def train() -> LabelledCodes:
    """Other rows of the same kind, to fit probes on."""
    values, labels = data()["values"].flip(1), data()["labels"]
    return LabelledCodes(values, data()["indices"].flip(1), labels, D_SAE)


def sampled() -> Tensor:
    """The rows of the lowest random numbers, in their order."""
    return row_ranks(data()["row"]).sort().indices[:SAMPLED]


class Case(NamedTuple):
    """A metric, the data of a row that it takes, and what it must say of all rows."""

    make: Callable[[], Metric]
    takes: dict[str, str]
    expected: Callable[[], dict[str, Any]] | None

    def given(self, rows: Tensor) -> dict[str, Tensor]:
        """Arguments of `update` for some rows."""
        if "W_dec" in self.takes:
            return {"W_dec": decoder()}
        return {
            name: data()[of][:, rows] if of == "x_hat_by_k" else data()[of][rows]
            for name, of in self.takes.items()
        }


def figures(result: Any) -> dict[str, Tensor]:
    """The figures of a result, by name."""
    found = {"": result} if isinstance(result, Tensor) else vars(result)
    return {
        name: torch.as_tensor(figure)
        for name, figure in found.items()
        if isinstance(figure, Tensor | int | float)
    }


def _codes(**others: str) -> dict[str, str]:
    return {"values": "values", "indices": "indices", **others}


X = {"x_hat": "x_hat", "x": "x"}


def _k_robustness() -> dict[str, Any]:
    pairs = [(x_hat, data()["x"]) for x_hat in data()["x_hat_by_k"]]
    return {
        "k": list(ROBUSTNESS_K),
        "nmse": [references.nmse(*pair) for pair in pairs],
        "r2": [references.r2(*pair) for pair in pairs],
    }


def _coherence() -> dict[str, Any]:
    largest, mean, nearest = references.decoder_coherence(decoder())
    for row in (3, 8):
        nearest.insert(row, torch.nan)
    return {"largest": largest, "mean": mean, "nearest": nearest}


def _truncated_probe() -> dict[str, Any]:
    top1 = [
        references.probe_accuracy(
            references.truncated(code(), k), data()["labels"],
            references.truncated(code(), k), data()["labels"],
        )
        for k in PROBE_K
    ]  # fmt: skip
    area = sum(
        (b + a) / 2 * (right - left)
        for a, b, left, right in zip(top1, top1[1:], PROBE_K, PROBE_K[1:], strict=False)
    )
    return {"top1": top1, "auc": area / 3, "top1_at_32": torch.nan, "converged": True}


def _k_sparse_probe() -> dict[str, Any]:
    f = references.anova_f(code(), data()["labels"])
    best = sorted(range(D_SAE), key=lambda latent: (-f[latent], latent))[: PROBE_K[-1]]
    labels = data()["labels"]
    top1 = [
        references.probe_accuracy(code()[:, best[:k]], labels, code()[:, best[:k]], labels)
        for k in PROBE_K
    ]
    return {"latents": best, "top1": top1, "converged": True}


CASES: dict[str, Case] = {
    "r2": Case(lambda: R2(D_IN), X, lambda: {"": references.r2(data()["x_hat"], data()["x"])}),
    "r2_uniform": Case(
        lambda: R2Uniform(D_IN),
        X,
        lambda: {"": references.r2_uniform(data()["x_hat"], data()["x"])},
    ),
    "nmse": Case(NMSE, X, lambda: {"": references.nmse(data()["x_hat"], data()["x"])}),
    "k_robustness": Case(
        lambda: KRobustness(D_IN, ROBUSTNESS_K), {"x_hat": "x_hat_by_k", "x": "x"}, _k_robustness
    ),
    "downstream_loss": Case(
        lambda: DownstreamLoss(head(), D_IN, N_CLASSES),
        X | {"labels": "labels"},
        lambda: references.downstream_loss(
            head(), data()["labels"], data()["x_hat"], data()["x"]
        ),
    ),
    "l0": Case(
        L0, {"values": "values"}, lambda: {"": float((code() > 0).sum(1).double().mean())}
    ),
    "dead": Case(
        lambda: DeadLatents(D_SAE), _codes(), lambda: {"": int((code() == 0).all(0).sum())}
    ),
    "hoyer": Case(lambda: Hoyer(D_SAE), _codes(), lambda: {"": references.hoyer(code())}),
    "firing_density": Case(
        lambda: FiringDensity(D_SAE),
        _codes(),
        lambda: {"counts": references.firing_density(code()), "dead": 1},
    ),
    "rank_profile": Case(
        lambda: RankProfile(D_SAE, k=2, max_rows=SAMPLED),
        {"pre_activations": "pre_activations", "sample_index": "row"},
        lambda: {
            "activation": references.rank_profile(data()["pre_activations"][sampled()], 8),
            "rows": SAMPLED,
        },
    ),
    "decoder_coherence": Case(lambda: DecoderCoherence(D_SAE), {"W_dec": ""}, _coherence),
    "uniqueness": Case(
        lambda: Uniqueness(D_SAE, n=3),
        _codes(sample_index="sample_index"),
        lambda: {
            "scores": references.uniqueness(
                references.top_images(code(), data()["sample_index"], 3)
            )
        },
    ),
    "top": Case(
        lambda: TopActivating(D_SAE, 3), _codes(sample_index="sample_index"), None
    ),
    "pooled": Case(lambda: ImageCodes(D_SAE), _codes(sample_index="sample_index"), None),
    "ms": Case(
        lambda: Monosemanticity(D_SAE, D_EMBED),
        _codes(embeddings="embeddings"),
        lambda: {"scores": references.monosemanticity(code(), data()["embeddings"])},
    ),
    "own_input": Case(
        lambda: OwnInputMonosemanticity(D_SAE, D_IN),
        _codes(x="x"),
        lambda: {"scores": references.monosemanticity(code(), data()["x"])},
    ),
    "frequency": Case(
        lambda: FrequencyCorrelation(D_SAE, D_EMBED),
        _codes(embeddings="embeddings"),
        lambda: {
            "": references.spearman(
                (code() > 0).sum(0).tolist(),
                references.monosemanticity(code(), data()["embeddings"]),
            )
        },
    ),
    "class_purity": Case(
        lambda: ClassPurity(D_SAE, N_CLASSES),
        _codes(labels="labels"),
        lambda: references.class_purity(code(), data()["labels"], N_CLASSES),
    ),
    "morans_i": Case(
        lambda: MoransI(D_SAE, GRID),
        _codes(sample_index="sample_index", patch_index="patch_index"),
        lambda: references.morans_i(
            code(), data()["sample_index"], data()["patch_index"], GRID
        )
        | {"incomplete": 0},
    ),
    "labelled_rows": Case(
        lambda: LabelledRows(D_SAE, k=4, max_rows=SAMPLED),
        _codes(labels="labels", sample_index="row"),
        lambda: {"labels": data()["labels"][sampled()].tolist()},
    ),
    "truncated_probe": Case(
        lambda: TruncatedProbe(train(), PROBE_K), _codes(labels="labels"), _truncated_probe
    ),
    "k_sparse_probe": Case(
        lambda: KSparseProbe(train(), PROBE_K), _codes(labels="labels"), _k_sparse_probe
    ),
}  # fmt: skip


def computed(name: str, batches: list[Tensor]) -> dict[str, Tensor]:
    """The figures of a metric after some batches of rows."""
    case = CASES[name]
    metric = case.make()
    for rows in batches:
        metric.update(**case.given(rows))
    return figures(metric.compute())
