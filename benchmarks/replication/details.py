"""What Tables 2 and 3 and the figures need of one autoencoder."""

from typing import NamedTuple

import torch
from replication.sets import Rows
from torch import Tensor

from lightsae.metrics import class_purity, k_around, k_robustness, rank_profile, truncated_probe
from lightsae.metrics.probing.labelled_codes import LabelledCodes
from lightsae.sae import SparseAutoencoder

PROBED = (1, 2, 4, 8, 16, 32)


class Details(NamedTuple):
    """Figures on the test split.

    Attributes:
        purity: Mean class purity, binary and weighted; empty without labels.
        probe: Top-1 at each k' of `PROBED`, and the normalised area; empty without labels.
        profile: Mean of the pre-Top-k activations by rank [4 k].
        k: Inference-time k of the two below.
        nmse: NMSE at each.
        r2: R2 at each.
    """

    purity: dict[str, float]
    probe: dict[str, float]
    profile: list[float]
    k: list[int]
    nmse: list[float]
    r2: list[float]


@torch.no_grad()
def details(sae: SparseAutoencoder, rows: dict[str, Rows], probe_rows: int) -> Details:
    """Purity, probes, rank profile and k-robustness; probes are fitted on so many training rows."""
    test, k = rows["test"], sae.selection.k
    tried = k_around(k, sae.d_sae)
    x_hat = torch.stack([sae.decode(sae.encode(test.x, k=each)) for each in tried])
    curve = k_robustness(x_hat=x_hat, x=test.x, k=tried)
    profile = rank_profile(sae.pre_activations(test.x), k).activation
    return Details(
        _purity(sae, test),
        _probe(sae, rows["train"], test, probe_rows),
        profile.tolist(), list(tried), curve.nmse.tolist(), curve.r2.tolist(),
    )  # fmt: skip


def _purity(sae: SparseAutoencoder, rows: Rows) -> dict[str, float]:
    if rows.label is None:
        return {}
    found = class_purity(sae.encode(rows.x), labels=rows.label, n_classes=_classes(rows.label))
    return {"binary": float(found.mean_binary), "weighted": float(found.mean_weighted)}


def _probe(sae: SparseAutoencoder, train: Rows, test: Rows, probe_rows: int) -> dict[str, float]:
    if train.label is None or test.label is None:
        return {}
    chosen = torch.randperm(len(train.x), generator=torch.Generator().manual_seed(0))[:probe_rows]
    k = min(max(PROBED), sae.d_sae)
    code, judged = sae.encode(train.x[chosen], k=k), sae.encode(test.x, k=k)
    fitted = LabelledCodes(code.values, code.indices, train.label[chosen], d_sae=sae.d_sae)
    curve = truncated_probe(judged, labels=test.label, train=fitted, k=PROBED)
    top1 = {f"top-1 at {k}": value for k, value in zip(PROBED, curve.top1.tolist(), strict=True)}
    return {"auc": float(curve.auc), **top1}


def _classes(label: Tensor) -> int:
    return int(label.max()) + 1
