"""Stability of several autoencoders over data: one pass for all of them."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lightsae.dictionaries.stability.activation_similarity import ActivationSimilarity
from lightsae.dictionaries.stability.baselines import (
    KINDS,
    chance_stability,
    random_stability,
)
from lightsae.dictionaries.stability.data_moments import DataMoments
from lightsae.dictionaries.stability.latent_stability import (
    THRESHOLDS,
    Cut,
    latent_stability,
    require_thresholds,
)
from lightsae.dictionaries.stability.reconstruction_share import require_autoencoder, shares_of
from lightsae.dictionaries.stability.result import StabilityResult
from lightsae.dictionaries.stability.seed_latents import SeedLatents
from lightsae.dictionaries.stability.set_ablation import SetAblation
from lightsae.dictionaries.subspaces.between_seeds import compare_each, compare_spans
from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors
from lightsae.sae import SparseAutoencoder

Columns = Mapping[str, Sequence[Tensor]]


@torch.no_grad()
def measure_stability(
    saes: Sequence[SparseAutoencoder],
    batches: Iterable[Tensor],
    *,
    names: Sequence[str] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    cut: Cut | None = None,
    columns: Columns | None = None,
    co_firing: bool = True,
    energy: float = 0.9,
    draws: int = 20,
    seed: int = 0,
) -> StabilityResult:
    """What is stable over seeds, how often it fires and what it reconstructs (arXiv 2606.12138).

    The data are read once, whatever the number of seeds. Stability is by cosine of decoder rows and
    by what fires when; the cut, the shares, the curve and the comparison of spans are ours, as
    their own docstrings say. A latent that never fires on these rows is no feature: it is left out
    of every mean, and no latent of another seed is found again in it.

    Kept in memory, beside sums of each latent: of every autoencoder the codes, 8 bytes an
    activation, and with `co_firing` as many again for each other one and for the shuffled rows, at
    most 16 bytes for each pair of latents of two dictionaries.

    Args:
        saes: Autoencoders of the same activations, trained from different seeds.
        batches: Raw activations, [B, d_in] each.
        names: Of the autoencoders; their numbers by default.
        thresholds: tau.
        cut: What divides stable and unstable; by default stability at .7 of at least .5.
        columns: Of each column, such as monosemanticity or purity, the values of every seed's
            latents, [d_sae]; NaN where a latent has none.
        co_firing: Compare activations too, of S (S - 1) / 2 pairs of dictionaries.
        energy: Share of the unstable directions that their span holds; see `compare_spans`.
        draws: Random subspaces of each kind.
        seed: Of what is random.

    Raises:
        LightsaeError: If there are fewer than two autoencoders, one is a transcoder, they or the
            data differ in width, a column has other latents, a setting is out of range, a decoder
            or an activation is not finite, or there are no rows.

    Example:
        >>> from lightsae.sae import TopK
        >>> sae = SparseAutoencoder(4, 8, TopK(2))
        >>> result = measure_stability([sae, sae], [torch.randn(64, 4)], co_firing=False)
        >>> result.mean_stability()[0].mean, result.rows
        (1.0, 64)
    """
    cut = Cut() if cut is None else cut
    names = tuple(map(str, range(len(saes)))) if names is None else tuple(names)
    _require_alike(saes, names)
    kept = _columns(columns or {}, saes)
    _require_settings(thresholds, cut, energy, draws)
    data = DataMoments()
    ablations = [SetAblation(sae) for sae in saes]
    together = ActivationSimilarity([sae.d_sae for sae in saes], seed) if co_firing else None
    _read(batches, data, ablations, together)
    decoders = [sae.W_dec.detach().cpu() for sae in saes]
    alive = [(ablation.firings > 0).cpu() for ablation in ablations]
    # A row of zeros is nobody's nearest: a latent that never fires is no feature to be found again.
    stability = latent_stability(
        [W * fires[:, None] for W, fires in zip(decoders, alive, strict=True)], thresholds
    )
    stable = [cut.stable(shares, stability.thresholds) for shares in stability.shares]
    similarity = {"cosine": list(stability.similarity)}
    if together is not None:
        similarity |= together.compute()
    seeds = tuple(
        SeedLatents(
            ablation.firings.cpu(),
            stable[place],
            {measure: each[place] for measure, each in similarity.items()},
            {name: each[place] for name, each in kept.items()},
        )
        for place, ablation in enumerate(ablations)
    )
    written = [
        (one.squares / data.rows).sqrt()[:, None].cpu() * W
        for one, W in zip(ablations, decoders, strict=True)
    ]
    unstable, weighted = compare_each(
        [_sets(each, seeds) for each in (decoders, written)], data.covariance(),
        energy=energy, draws=draws, seed=seed,
    )  # fmt: skip
    by_chance = {} if together is None else together.by_chance()
    return StabilityResult(
        names, saes[0].d_in, data.rows, stability.thresholds, cut, seeds,
        {kind: random_stability(decoders, thresholds, kind, counted=alive, seed=seed)
         for kind in KINDS},
        {measure: chance_stability(each, thresholds, alive[:2])
         for measure, each in by_chance.items()},
        tuple(shares_of(*each, data) for each in zip(ablations, stable, strict=True)),
        unstable, weighted,
    )  # fmt: skip


def _read(
    batches: Iterable[Tensor],
    data: DataMoments,
    ablations: Sequence[SetAblation],
    together: ActivationSimilarity | None,
) -> None:
    """The pass over the data."""
    for batch in batches:
        x = _checked(batch, ablations[0].sae)
        data.update(x)
        codes = []
        for ablation in ablations:
            rows = x.to(ablation.sae.W_dec)
            codes.append(ablation.sae.encode(rows))
            ablation.update(rows, codes[-1])
        if together is not None:
            together.update(codes)
    if data.rows == 0:
        raise LightsaeError("batches have no rows")


def _sets(
    directions: Sequence[Tensor], seeds: Sequence[SeedLatents]
) -> tuple[list[Tensor], list[Tensor]]:
    """Those of the unstable latents that fire, and of the stable ones."""
    pairs = list(zip(directions, seeds, strict=True))
    unstable = [rows[each.alive & ~each.stable] for rows, each in pairs]
    return unstable, [rows[each.alive & each.stable] for rows, each in pairs]


def _require_alike(saes: Sequence[SparseAutoencoder], names: Sequence[str]) -> None:
    if len(saes) < 2:
        raise LightsaeError(f"saes holds {len(saes)}, expected two seeds or more")
    if len(names) != len(saes):
        raise LightsaeError(f"names holds {len(names)}, expected one of {len(saes)} each")
    for name, sae in zip(names, saes, strict=True):
        require_autoencoder(name, sae)
        if sae.d_in != saes[0].d_in:
            raise LightsaeError(
                f"{name} has d_in = {sae.d_in}, {names[0]} {saes[0].d_in}: expected one width"
            )
        if not sae.W_dec.isfinite().all():
            raise LightsaeError(f"the decoder of {name} has NaN or infinite values")


def _require_settings(thresholds: Sequence[float], cut: Cut, energy: float, draws: int) -> None:
    """Refuse before the pass what would be refused after it."""
    nothing = torch.zeros(2, 1)
    taus = require_thresholds(thresholds)
    cut.stable(torch.zeros(0, len(taus)), taus)
    compare_spans([nothing, nothing], energy=energy, draws=draws)


def _columns(columns: Columns, saes: Sequence[SparseAutoencoder]) -> dict[str, list[Tensor]]:
    found = {}
    for name, each in columns.items():
        require_tensors(**{f"columns {name!r}": values for values in each})
        shapes = [list(values.shape) for values in each]
        wanted = [[sae.d_sae] for sae in saes]
        if "/" in name:
            raise LightsaeError(f"columns has {name!r}, expected a name without a slash")
        if shapes != wanted:
            raise LightsaeError(f"columns {name!r} has shapes {shapes}, expected {wanted}")
        found[name] = [values.detach().cpu().double() for values in each]
    return found


def _checked(batch: Tensor, sae: SparseAutoencoder) -> Tensor:
    if not isinstance(batch, Tensor) or batch.ndim != 2 or batch.shape[1] != sae.d_in:
        told = list(batch.shape) if isinstance(batch, Tensor) else type(batch).__name__
        raise LightsaeError(f"a batch is {told}, expected [B, d_in = {sae.d_in}]")
    return batch.to(sae.W_dec.device)
