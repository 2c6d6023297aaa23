"""What is measured per image: monosemanticity, class purity, the strongest images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightsae.evaluation.embeddings import ImageEmbeddings
from lightsae.evaluation.one_pass.counters import Counters
from lightsae.metrics import ClassPurity, Monosemanticity, TopActivating

# Entries, of 24 bytes each.
_WAITING = 1 << 19


@dataclass(frozen=True)
class ImageBatch:
    """Codes of some images, an entry for each image and latent that fires.

    Attributes:
        values: Positive activations `[entries]`.
        indices: Int64 `[entries]`, their latents.
        rows: Int64 `[entries]`, position of each entry's image in `numbers`.
        numbers: Int64 `[n]`, the images.
        own: Float `[n, d_in]`, the autoencoder's own input of each, if wanted.
        labels: Int64 `[n]`, their classes, if known; -1 for none.
    """

    values: Tensor
    indices: Tensor
    rows: Tensor
    numbers: Tensor
    own: Tensor | None
    labels: Tensor | None


class ImageMeasures:
    """Metrics over images, each given once.

    Args:
        d_sae: Size of the dictionary.
        d_in: Width of the autoencoder's input.
        embeddings: What monosemanticity is measured in.
        n_classes: Number of classes; 0 without labels.
        top_images: How many of the strongest images are kept; 0 where images have no numbers.
        device: Where the codes are.

    Attributes:
        scores: Monosemanticity in each embedding, by name.
        counted: Images that count in each of these.
        purity: Class purity, or None.
        top: The strongest images by number, or None.
    """

    def __init__(
        self,
        d_sae: int,
        d_in: int,
        embeddings: list[ImageEmbeddings],
        n_classes: int,
        top_images: int,
        device: torch.device,
    ) -> None:
        self._embeddings = embeddings
        self.scores = {
            each.name: Monosemanticity(d_sae, each.width(d_in)).to(device) for each in embeddings
        }
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self.counted = Counters(self.scores).to(device)
        self.purity = ClassPurity(d_sae, n_classes).to(device) if n_classes else None
        self.top = TopActivating(d_sae, top_images).to(device) if top_images else None

    @property
    def wants_own(self) -> bool:
        """Whether the autoencoder's own input is among the embeddings."""
        return any(each.table is None for each in self._embeddings)

    def update(self, batch: ImageBatch) -> None:
        """Add images."""
        for each in self._embeddings:
            self._score(each, batch)
        if self.purity is not None and batch.labels is not None:
            values, indices, labels = batch.values, batch.indices, batch.labels[batch.rows]
            known = labels >= 0
            if not known.all():
                values, indices, labels = values[known], indices[known], labels[known]
            self.purity.update(values, indices, labels)
        if self.top is not None:
            self._waiting.append((batch.values, batch.indices, batch.numbers[batch.rows]))
            if sum(len(values) for values, _, _ in self._waiting) > _WAITING:
                self.flush()

    def flush(self) -> None:
        """Give the strongest images what has waited: a few large batches are sooner sorted."""
        if self.top is not None and self._waiting:
            self.top.update(*(torch.cat(column) for column in zip(*self._waiting, strict=True)))
            self._waiting.clear()

    def _score(self, embeddings: ImageEmbeddings, batch: ImageBatch) -> None:
        """Add images to the scores in one embedding."""
        values, indices, rows = batch.values, batch.indices, batch.rows
        if embeddings.table is not None:
            vectors = embeddings.of(batch.numbers)
        else:
            assert batch.own is not None
            vectors = batch.own
            # An input without a direction has no cosine: its image is left out and not counted.
            present = (vectors != 0).any(1)
            if not present.all():
                kept = present[rows]
                values, indices = values[kept], indices[kept]
                rows = (present.cumsum(0) - 1)[rows[kept]]
                vectors = vectors[present]
        self.scores[embeddings.name].update(values, indices, vectors, rows)
        self.counted.update(**{embeddings.name: len(vectors)})
