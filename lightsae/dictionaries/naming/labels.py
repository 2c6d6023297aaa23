"""Names of latents from labels: the class or attribute on whose rows a latent fires."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightsae.dictionaries.naming.distinct_samples import DistinctSamples
from lightsae.dictionaries.naming.latent_names import LatentNames
from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import size
from lightsae.sae import SparseCode
from lightsae.sae.index_checks import integers, latent_indices

# Entries whose attributes are counted at once: 64 MiB for 128 attributes.
_ENTRIES = 1 << 16
# Latents whose purities are sorted at once: 64 MiB for 1,000 labels.
_LATENTS = 1 << 13


class LabelCounts:
    """How often latents fire on rows of each label, over batches.

    Args:
        d_sae: Number of latents.
        n_labels: Number of classes, or of attributes.
        enough: Where rows are told to be of samples: up to how many of each latent are counted.

    Attributes:
        on_label: Rows of each label where each latent fires [d_sae, n_labels], int64.
        firings: Rows where each latent fires [d_sae], int64.
        samples: Different samples where each latent fires [d_sae], int64, at most `enough`; as
            `firings` where rows are not told to be of samples.
        label_rows: Rows of each label [n_labels], int64.
        rows: Number of rows, those without a class left out.

    Example:
        >>> code = SparseCode(torch.ones(3, 1), torch.tensor([[0], [0], [1]]), d_sae=2)
        >>> counts = LabelCounts(d_sae=2, n_labels=2)
        >>> counts.update(code, torch.tensor([1, 1, 0]))
        >>> counts.on_label
        tensor([[0, 2],
                [1, 0]])
    """

    def __init__(self, d_sae: int, n_labels: int, enough: int = 10) -> None:
        self.d_sae, self.n_labels = size("d_sae", d_sae), size("n_labels", n_labels)
        self.on_label = torch.zeros(d_sae, n_labels, dtype=torch.long)
        self.firings = torch.zeros(d_sae, dtype=torch.long)
        self.label_rows = torch.zeros(n_labels, dtype=torch.long)
        self.rows = 0
        self.enough = size("enough", enough)
        self._distinct: DistinctSamples | None = None

    @property
    def samples(self) -> Tensor:
        """Different samples where each latent fires."""
        return self.firings if self._distinct is None else self._distinct.count

    @property
    def tells_samples(self) -> bool:
        """Whether several rows may be of one sample."""
        return self._distinct is not None

    def update(self, code: SparseCode, labels: Tensor, samples: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            code: Codes of some rows.
            labels: Class of each row [rows], integers, -1 where it is not known; or which
                attributes it has [rows, n_labels], bool.
            samples: Of tokens or patches the sample that each row is of [rows], integers; by
                default each row is one. For all batches or for none.

        Raises:
            LightsaeError: If they do not fit together, or there is no such class.
        """
        if code.d_sae != self.d_sae:
            raise LightsaeError(f"the code has d_sae = {code.d_sae}, expected {self.d_sae}")
        indices = latent_indices(code.values, code.indices, self.d_sae).cpu()
        has = self._checked(labels, len(code))
        known = torch.ones(len(code), dtype=torch.bool) if has.ndim == 2 else has >= 0
        row, place = ((code.values > 0).cpu() & known.unsqueeze(1)).nonzero(as_tuple=True)
        latent = indices[row, place]
        self._tell_samples(latent, row, samples, len(code))
        self.firings += latent.bincount(minlength=self.d_sae)
        self.rows += int(known.sum())
        if has.ndim == 1:
            self.label_rows += has[known].bincount(minlength=self.n_labels)
            cells = latent * self.n_labels + has[row]
            self.on_label.view(-1).index_add_(0, cells, torch.ones_like(cells))
            return
        self.label_rows += has.sum(dim=0)
        for some, of in zip(latent.split(_ENTRIES), row.split(_ENTRIES), strict=True):
            self.on_label.index_add_(0, some, has[of].long())

    def _tell_samples(self, latent: Tensor, row: Tensor, samples: Tensor | None, n: int) -> None:
        """Count firings by sample, if rows are told to be of samples."""
        if (samples is None) != (self._distinct is None) and self.rows:
            raise LightsaeError("samples: expected for all batches or for none")
        if samples is None:
            return
        if list(samples.shape) != [n]:
            raise LightsaeError(f"samples is {list(samples.shape)}, expected [{n}]")
        if self._distinct is None:
            self._distinct = DistinctSamples(self.d_sae, self.enough)
        self._distinct.update(latent, integers("samples", samples).cpu()[row])

    def _checked(self, labels: Tensor, rows: int) -> Tensor:
        """Classes [rows] int64, or attributes [rows, n_labels] bool."""
        if labels.dtype == torch.bool:
            if list(labels.shape) != [rows, self.n_labels]:
                raise LightsaeError(
                    f"labels is bool {list(labels.shape)}, expected [{rows}, {self.n_labels}]"
                )
            return labels.cpu()
        if list(labels.shape) != [rows]:
            raise LightsaeError(
                f"labels is {list(labels.shape)}, expected classes [{rows}] or attributes "
                f"[{rows}, {self.n_labels}] bool"
            )
        found = integers("labels", labels).cpu()
        if rows and not -1 <= int(found.min()) <= int(found.max()) < self.n_labels:
            raise LightsaeError(f"labels must lie in [-1, n_labels = {self.n_labels})")
        return found

    def purity(self) -> Tensor:
        """Share of a latent's firings that are on each label, beyond chance [d_sae, n_labels].

        `(p - b) / (1 - b)` with p that share and b the label's share of all rows (ours): 1 where
        the latent fires on nothing else, 0 where it fires on the label as often as on any row,
        whatever its frequency. Float32; NaN where the latent never fires, or every row or none has
        the label.
        """
        return self._purity(slice(None))

    def _purity(self, latents: slice) -> Tensor:
        """That of some latents."""
        base = self.label_rows.double() / self.rows
        share = self.on_label[latents].double() / self.firings[latents].unsqueeze(1)
        found = (share - base) / (1 - base)
        return found.masked_fill_((base == 0) | (base == 1), torch.nan).float()

    def share(self) -> Tensor:
        """Share of each label's rows where a latent fires [d_sae, n_labels]; NaN without any."""
        return (self.on_label.double() / self.label_rows).float()


def name_by_labels(
    counts: LabelCounts,
    words: Sequence[str],
    floor: float = 0.5,
    *,
    min_firings: int = 10,
    candidates: int = 1,
) -> LatentNames:
    """Call each latent by the class or attribute that its firings are purest in.

    Ours, for models that no text belongs to. An AUROC would not do: that of a latent which fires
    on a tenth of one class and on nothing else is .55.

    Args:
        counts: Of labelled rows.
        words: What the labels are called [n_labels].
        floor: Least purity beyond chance of a name, in (0, 1]; see `LabelCounts.purity`.
        min_firings: Of firings in fewer samples nothing is concluded: there is no candidate. The
            fewer and commoner the labels, the more are needed: of two equally frequent classes one
            has a purity of .5 or more by chance with probability .11 after 10 firings, .005 after
            30.
        candidates: How many of the purest labels to keep.

    Returns:
        Names whose scores are purities beyond chance, the first of equal labels first.

    Raises:
        LightsaeError: If a number is not as said, words are not as many as labels, or samples were
            counted up to fewer than min_firings.

    Example:
        >>> code = SparseCode(torch.ones(40, 1), torch.arange(40).unsqueeze(1) % 2, d_sae=3)
        >>> counts = LabelCounts(d_sae=3, n_labels=2)
        >>> counts.update(code, torch.arange(40) % 2)
        >>> name_by_labels(counts, ["cat", "dog"]).names
        ['cat', 'dog', None]
    """
    require_floor(floor)
    for name, value in {"min_firings": min_firings, "candidates": candidates}.items():
        size(name, value)
    if len(words) != counts.n_labels or len(set(words)) < len(words):
        raise LightsaeError(
            f"words are {len(words)}, {len(set(words))} of them different, expected "
            f"{counts.n_labels} different ones"
        )
    if counts.tells_samples and min_firings > counts.enough:
        raise LightsaeError(
            f"min_firings is {min_firings}, samples were counted up to enough = {counts.enough}"
        )
    scores, places = _purest(counts, min_firings, candidates)
    lost = scores == -torch.inf
    return LatentNames(
        words=list(words),
        candidates=places.masked_fill(lost, -1),
        scores=scores.masked_fill(lost, torch.nan),
        alive=counts.firings > 0,
        cutoff=floor,
        measure="purity",
        about={"rows": counts.rows, "min_firings": min_firings},
    )


def _purest(counts: LabelCounts, min_firings: int, n: int) -> tuple[Tensor, Tensor]:
    """The n purest labels of each latent and their purities, -inf where nothing is concluded."""
    parts = []
    for first in range(0, counts.d_sae, _LATENTS):
        some = slice(first, first + _LATENTS)
        purity = counts._purity(some).nan_to_num(-torch.inf)
        purity[counts.samples[some] < min_firings] = -torch.inf
        ranked = purity.sort(dim=1, descending=True, stable=True)
        parts.append((ranked.values[:, :n].clone(), ranked.indices[:, :n].clone()))
    scores, places = (torch.cat(each) for each in zip(*parts, strict=True))
    return scores, places


def require_floor(floor: float) -> None:
    """Refuse what is no purity beyond chance."""
    if not 0 < floor <= 1:
        raise LightsaeError(f"floor is {floor}, expected a purity in (0, 1]")
