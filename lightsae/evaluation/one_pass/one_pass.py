"""Every metric of an autoencoder over the rows of a split, in one pass."""

import torch
from torch import Tensor

from lightsae.activations import ActivationBatch
from lightsae.evaluation.embeddings import ImageEmbeddings
from lightsae.evaluation.one_pass.counters import Counters
from lightsae.evaluation.one_pass.image_measures import ImageBatch, ImageMeasures
from lightsae.evaluation.one_pass.measured import Measured
from lightsae.evaluation.one_pass.reconstruction_measures import ReconstructionMeasures
from lightsae.evaluation.one_pass.row_sample import RowSample
from lightsae.evaluation.one_pass.sampled_curves import sampled_curves
from lightsae.evaluation.one_pass.token_pooling import PooledImages
from lightsae.evaluation.options import EvaluationOptions
from lightsae.evaluation.split_images import SplitImages
from lightsae.metrics import L0, FiringDensity, Hoyer, MoransI
from lightsae.sae import SparseAutoencoder, SparseCode, Transcoder


class OnePass:
    """Takes batches as they are encoded, over all ranks, and tells every metric at the end.

    Args:
        sae: The autoencoder.
        images: The images of the split; None where the loader does not say which a row is of. Then
            each row is an image, and the strongest are not kept.
        embeddings: What monosemanticity is measured in.
        options: How it is evaluated.

    Attributes:
        notes: What is left out, and why.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        images: SplitImages | None,
        embeddings: list[ImageEmbeddings],
        options: EvaluationOptions,
    ) -> None:
        self._sae, self._images, self._embeddings = sae, images, embeddings
        self._options, device = options, sae.W_enc.device
        d_sae, d_in = sae.d_sae, sae.d_in
        self._of_reconstructions = ReconstructionMeasures(sae.d_out).to(device)
        self._of_codes = {"l0": L0().to(device), "hoyer": Hoyer(d_sae).to(device)}
        self._density = FiringDensity(d_sae).to(device)
        self._sample = self._row_sample()
        classes = 0 if images is None else images.n_classes
        kept = 0 if images is None else options.top_images
        self._measures = ImageMeasures(d_sae, d_in, embeddings, classes, kept, device)
        self._pooled: PooledImages | None = None
        if images is not None and images.tokens is None:
            own = self._measures.wants_own
            self._pooled = PooledImages(images, d_sae, d_in, options.pooling, own, device)
        self._morans_i: MoransI | None = None
        if images is not None and images.grid is not None:
            self._morans_i = MoransI(d_sae, images.grid).to(device)
        self._seen = Counters(["rows", "images"]).to(device)
        self.notes = self._left_out()

    @property
    def pools(self) -> bool:
        """Whether images have several rows, which are pooled."""
        return self._pooled is not None

    def _row_sample(self) -> RowSample | None:
        """The sample of rows, unless nothing tells them apart."""
        if self._images is None or not self._images.told_apart:
            return None
        sae, most = self._sae, self._options.rank_rows
        d_out = sae.d_out if isinstance(sae, Transcoder) else 0
        return RowSample(most, sae.d_in, self._images.rows, d_out).to(sae.W_enc.device)

    def _left_out(self) -> list[str]:
        notes = []
        if self._images is None:
            notes.append("the loader does not say which image a row is of: no top images")
        if self._sample is None:
            notes.append(
                "rows cannot be told apart by sample and token index: no rank profile and no "
                "k-robustness"
            )
        if self._measures.purity is None:
            notes.append("there are no class labels: no class purity, no probes")
        return notes

    @torch.no_grad()
    def update(self, batch: ActivationBatch, code: SparseCode, x_hat: Tensor) -> None:
        """Add a batch.

        Args:
            batch: The rows; of a transcoder with their targets.
            code: Their code, [B, k].
            x_hat: Their reconstruction, [B, d_out].
        """
        x, targets = batch.activations, None
        if isinstance(self._sae, Transcoder):
            targets = batch.targets
        self._of_reconstructions.update(x_hat=x_hat, x=x if targets is None else targets)
        for metric in self._of_codes.values():
            metric.update(code)
        self._density.update(code)
        self._seen.update(rows=len(x))
        if self._sample is not None:
            self._sample.update(x, batch.sample_index, batch.token_index, targets)
        if self._morans_i is not None and self._images is not None:
            patches = batch.token_index - self._images.first_patch
            self._morans_i.update(code, batch.sample_index, patches)
        if self._pooled is not None:
            self._pooled.update(batch, code)
        else:
            self._add_images(self._as_images(batch, code))

    def _as_images(self, batch: ActivationBatch, code: SparseCode) -> ImageBatch:
        """Rows that are an image each."""
        rows, places = (code.values > 0).nonzero(as_tuple=True)
        if self._images is None:
            numbers = torch.arange(len(code.values), device=rows.device)
        else:
            numbers = self._images.number(batch.sample_index, batch.token_index)
        return ImageBatch(
            code.values[rows, places], code.indices[rows, places], rows, numbers,
            batch.activations, batch.label,
        )  # fmt: skip

    @torch.no_grad()
    def compute(self) -> Measured:
        """Bring the ranks together; every rank gets the same."""
        for batch in self._pooled.batches() if self._pooled is not None else ():
            self._add_images(batch)
        seen = self._seen.compute()
        found = Measured(seen["rows"], seen["images"])
        found.scalars |= self._of_reconstructions.compute()
        for name, metric in self._of_codes.items():
            found.scalars[name] = float(metric.compute())
        found.add_density(self._density)
        found.add_decoder(self._sae.W_dec)
        samples, tokens = self._places()
        found.add_images(self._measures, samples, tokens)
        if self._morans_i is not None:
            found.add_morans_i(self._morans_i)
        if self._sample is not None:
            rows, targets = self._sample.compute()
            transcodes = isinstance(self._sae, Transcoder)
            found.curves |= sampled_curves(self._sae, rows, targets if transcodes else None)
        return found

    def _add_images(self, batch: ImageBatch) -> None:
        self._measures.update(batch)
        self._seen.update(images=len(batch.numbers))

    def _places(self) -> tuple[Tensor | None, Tensor | None]:
        """Sample and token of each image, where they are known."""
        if self._images is None:
            return None, None
        tokens = self._images.tokens
        samples = torch.from_numpy(self._images.samples)
        return samples, None if tokens is None else torch.from_numpy(tokens)
