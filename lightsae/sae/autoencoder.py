"""The Top-k sparse autoencoder."""

import copy
import math
from functools import partial
from typing import Any

import torch
from lightsae_kernels import (
    Encoded,
    NarrowCopy,
    PairOrder,
    Residual,
    encode_residual,
    encode_topk,
    sparse_decode,
    sparse_residual,
)
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from lightsae.errors import LightsaeError
from lightsae.sae import save_load
from lightsae.sae.initialization import Centre, input_statistics
from lightsae.sae.normalization import (
    EPSILON,
    ROW_WISE,
    Normalization,
    Normalized,
    normalize_rows,
    require_known,
    row_statistics,
)
from lightsae.sae.regularizers import Regularizer
from lightsae.sae.saved_autoencoder import SavedAutoencoder
from lightsae.sae.selection import (
    Batch,
    FusedSelection,
    Selection,
    TopK,
    fused_options,
    inference_rule,
)
from lightsae.sae.sparse_code import SparseCode


class SparseAutoencoder(SavedAutoencoder):
    """x / scale is centred, encoded to a few latents and decoded again (arXiv 2606.27321).

        a = ReLU(W_enc (x / scale - b_dec) + b_enc)
        x_hat = scale (select(a) W_dec + b_dec)

    Both matrices hold a latent per row. The decoder starts as the encoder transposed, with rows of
    unit norm that `normalize_decoder_` keeps.

    Inputs and reconstructions are always raw: normalisation is part of the autoencoder, saved with
    it and undone after decoding. `initialize_` sets `scale` and `b_dec` from data:

    - variance: the loss of a mean predictor is 1; b_dec starts as the centre.
    - none: scale is 1, b_dec starts as 0.
    - centre: scale is 1, b_dec starts as the centre.
    - centre_scale: the mean norm of x / scale - b_dec is sqrt(d_in); b_dec starts as the centre.
    - layer_norm: each row less its mean, divided by its standard deviation, takes the place of
      x / scale.
    - layer_norm_unbiased: likewise with the divisor d_in - 1 of a sample, and 1e-5 added to the
      standard deviation where rows are divided by it, not where they are multiplied by it again:
      as SAELens, OpenAI and Prisma normalise.
    - unit_norm: each row divided by its l2 norm takes that place.

    The centre is subtracted by b_dec, which goes on learning: subtracting it beforehand and
    learning a b_dec that starts as 0 is the same function with the same gradients. What a row was
    divided by in the last three is kept in its code, from which `decode` takes it.

    Args:
        d_in: Width of the inputs.
        d_sae: Size of the dictionary.
        selection: Which latents stay; by default `TopK(32)`.
        normalization: What is done to inputs before they are encoded.
        apply_b_dec_to_input: Subtract b_dec from the inputs of the encoder. Without it the formula
            is a = ReLU(W_enc x / scale + b_enc), and `initialize_` centres by b_enc.

    Attributes:
        W_enc: Encoder, [d_sae, d_in].
        b_enc: Encoder bias, [d_sae].
        W_dec: Decoder, [d_sae, d_in].
        b_dec: Centre of the scaled inputs, [d_in].
        scale: Input scale, a scalar buffer.
        selection: A copy of the rule, if that has tensors of its own; they are in the state dict.
        provenance: Where it comes from, JSON; saved beside the weights.
        origin: Where `from_pretrained` downloaded it from, or None.

    Raises:
        LightsaeError: If a size is smaller than 1, k is larger than d_sae, or there is no such
            normalisation.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> sae = SparseAutoencoder(d_in=8, d_sae=32, selection=TopK(4))
        >>> code = sae.encode(torch.randn(5, 8))
        >>> code.values.shape, sae.decode(code).shape
        (torch.Size([5, 4]), torch.Size([5, 8]))
    """

    scale: Tensor

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        selection: Selection | None = None,
        normalization: Normalization = "variance",
        apply_b_dec_to_input: bool = True,
    ) -> None:
        super().__init__()
        require_known(normalization)
        self.normalization: Normalization = normalization
        self.apply_b_dec_to_input = apply_b_dec_to_input
        self.provenance: dict[str, Any] = {}
        for name, size in (("d_in", d_in), ("d_sae", d_sae)):
            if size < 1:
                raise LightsaeError(f"{name} must be at least 1, got {size}")
        self.selection: Selection = built(TopK(32) if selection is None else selection, d_sae)
        if self.selection.k > d_sae:
            raise LightsaeError(f"k = {self.selection.k} is larger than d_sae = {d_sae}")
        rows = nn.functional.normalize(torch.randn(d_sae, d_in), dim=1)
        self.W_enc = nn.Parameter(rows)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(rows.clone())
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("scale", torch.ones(()))
        self._narrow: dict[str, NarrowCopy] = {}

    @property
    def d_in(self) -> int:
        """Width of the inputs."""
        return self.W_enc.shape[1]

    @property
    def d_out(self) -> int:
        """Width of what is reconstructed; d_in but for a `Transcoder`."""
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        """Size of the dictionary."""
        return self.W_enc.shape[0]

    def keep_narrow(self, name: str, dtype: torch.dtype) -> NarrowCopy:
        """Let products in a dtype take a copy of a weight instead of casting it each time.

        Args:
            name: "W_enc" or "W_dec".
            dtype: Of the product, under autocast.

        Returns:
            The copy, to be written by whoever steps the weight (`SAEAdam.keep_copy` does). It is
            in no state dict, and is taken only while the weight is as it was written.
        """
        self._narrow[name] = NarrowCopy(dtype)
        return self._narrow[name]

    def narrow(self, name: str) -> Tensor | None:
        """The copy of a weight as it is now, if one is kept."""
        return self._narrow[name].of(getattr(self, name)) if name in self._narrow else None

    @torch.no_grad()
    def initialize_(self, sample: Tensor, centre: Centre = "mean") -> None:
        """Set scale and b_dec from a sample of the data.

        Args:
            sample: Inputs, [rows, d_in].
            centre: What b_dec starts as.

        Raises:
            LightsaeError: If the sample has another width, is empty or constant, has NaN or inf, or
                its scale or centre does not fit into the dtype of the parameters.
        """
        scale, b_dec = self.scale_and_centre(
            sample, centre, self.normalization, ("d_in", self.d_in)
        )
        self.scale.copy_(scale)
        self.b_dec.copy_(b_dec)
        if not self.apply_b_dec_to_input:
            self.b_enc.copy_(-(self.W_enc @ b_dec))

    def scale_and_centre(
        self, sample: Tensor, centre: Centre, normalization: Normalization, width: tuple[str, int]
    ) -> tuple[Tensor, Tensor]:
        """Scale of a sample and centre of what it divides, in the dtypes of their own.

        Args:
            sample: Rows, [rows, width].
            centre: Which.
            normalization: What they are for.
            width: What messages call the width, and what it has to be.

        Raises:
            LightsaeError: As in `initialize_`.
        """
        if sample.dim() != 2 or sample.shape[1] != width[1]:
            raise LightsaeError(
                f"the training sample has shape {tuple(sample.shape)}, "
                f"the autoencoder expects [rows, {width[0]} = {width[1]}]"
            )
        statistics = input_statistics(sample, centre, normalization)
        scale = statistics.scale.to(self.scale)
        middle = (statistics.centre / statistics.scale).to(self.b_dec)
        if not (0 < scale < math.inf and bool(torch.isfinite(middle).all())):
            raise LightsaeError(
                f"the training sample does not fit into {self.scale.dtype}: "
                f"scale {statistics.scale:.3g}, centre up to {statistics.centre.abs().max():.3g}"
            )
        return scale, middle

    def normalize(self, x: Tensor) -> Normalized:
        """Inputs [B, d_in] as the autoencoder works with them."""
        statistics = row_statistics(x, self.normalization)
        if statistics is None:
            return Normalized(x / self.scale, None)
        return Normalized(normalize_rows(x, statistics, self.normalization), statistics)

    def residual_in_units_of(self, x: Tensor, residual: Tensor) -> Tensor:
        """A residual of normalised inputs in the units of the inputs themselves.

        Args:
            x: The inputs, [B, d_in].
            residual: What their normalised form has left unexplained, [B, d_in].

        Returns:
            x - x_hat, [B, d_in].
        """
        statistics = row_statistics(x, self.normalization)
        if statistics is None:
            return residual * self.scale
        found = residual * statistics[:, 1:]
        if self.normalization == "layer_norm_unbiased":
            found = found + EPSILON * self.normalize(x).x
        return found

    def encode_scaled(
        self,
        x: Tensor,
        *,
        k: int | None = None,
        regularizer: Regularizer | None = None,
        process_group: ProcessGroup | None = None,
        order: PairOrder | None = None,
    ) -> Encoded:
        """Encode inputs that are already normalised; see `Selection.encode`.

        In eval mode a rule is applied as to new inputs. What the decode of the code gets as `order`
        spares it a sort.
        """
        rule = self._rule()
        options = fused_options(regularizer, process_group)
        if options is not None and isinstance(rule, FusedSelection):
            operation = partial(
                encode_topk, x, *self.encoder, W_enc_narrow=self.narrow("W_enc"), order=order
            )
            if k is not None:
                return operation(k, **options)
            return rule.run(operation, Batch(x, self.encoder), options)
        return rule.encode(
            x, self.encoder, k=k, regularizer=regularizer, process_group=process_group
        )

    def _rule(self) -> Selection:
        """The selection rule in this mode."""
        return self.selection if self.training else inference_rule(self.selection)

    @property
    def encoder(self) -> tuple[Tensor, Tensor, Tensor]:
        """W_enc, b_enc and what is subtracted from inputs."""
        subtracted = self.b_dec if self.apply_b_dec_to_input else torch.zeros_like(self.b_dec)
        return self.W_enc, self.b_enc, subtracted

    def encode_residual(
        self,
        x: Tensor,
        target: Tensor | None = None,
        *,
        regularizer: Regularizer | None = None,
        process_group: ProcessGroup | None = None,
    ) -> tuple[Encoded, Residual]:
        """Code of inputs that are already normalised, and what it leaves unexplained.

        Args:
            x: Normalised inputs, [B, d_in].
            target: What the code is to reconstruct, [B, d_out]; x if left out.
            regularizer: Penalty on the activations before selection.
            process_group: Ranks that share the batch.
        """
        rule, options = self._rule(), fused_options(regularizer, process_group)
        fused = options is not None and self.apply_b_dec_to_input and target is None
        if fused and isinstance(rule, FusedSelection):
            weights = self.W_enc, self.b_enc, self.W_dec, self.b_dec
            operation = partial(
                encode_residual, x, *weights, W_enc_narrow=self.narrow("W_enc"),
                W_dec_narrow=self.narrow("W_dec"),
            )  # fmt: skip
            assert options is not None
            found: tuple[Encoded, Residual] = rule.run(operation, Batch(x, self.encoder), options)
            return found
        order = PairOrder()
        encoded = self.encode_scaled(
            x, regularizer=regularizer, process_group=process_group, order=order
        )
        wanted = x if target is None else target
        return encoded, sparse_residual(
            wanted, encoded.values, encoded.indices, self.W_dec, self.b_dec, used=encoded.used,
            W_dec_narrow=self.narrow("W_dec"), order=order,
        )  # fmt: skip

    def decode_scaled(self, values: Tensor, indices: Tensor) -> Tensor:
        """Reconstruct normalised inputs, or of a transcoder targets, [B, d_out]; without a skip."""
        narrow = self.narrow("W_dec")
        return sparse_decode(values, indices, self.W_dec, self.b_dec, W_dec_narrow=narrow)

    def encode(self, x: Tensor, k: int | None = None) -> SparseCode:
        """Code of a batch, as the rule is applied to new inputs.

        Args:
            x: Inputs, [B, d_in], in the dtype of the parameters.
            k: Keep the k largest activations of each row instead, whatever the rule.

        Returns:
            Values, descending along a row, and indices, [B, k]; of a rule with a threshold as many
            places as the fullest row has.

        Raises:
            ValueError: If x is not [B, d_in] or k does not fit.
        """
        _require_tensor(x, self.d_in)
        scaled, statistics = self.normalize(x)
        encoded = self._encode_new(scaled, k)
        return SparseCode(encoded.values, encoded.indices, self.d_sae, statistics)

    def _encode_new(self, x: Tensor, k: int | None) -> Encoded:
        """Code of normalised inputs in any mode, values descending."""
        rule = inference_rule(self.selection)
        if type(rule) is TopK or k is not None:
            kept = self.selection.k if k is None else k
            return encode_topk(x, *self.encoder, kept, W_enc_narrow=self.narrow("W_enc"))
        encoded = rule.encode(x, self.encoder)
        values, places = encoded.values.sort(dim=1, descending=True, stable=True)
        return encoded._replace(values=values, indices=encoded.indices.gather(1, places), used=None)

    def decode(self, code: SparseCode, x: Tensor | None = None) -> Tensor:
        """Reconstruction of a code in the units of the inputs, [B, d_in].

        Args:
            code: As `encode` gives it.
            x: The inputs that it is of, [B, d_in]; of use to a `Transcoder` with a skip alone.

        Raises:
            LightsaeError: If it is none of this dictionary, or normalisation is by row and the code
                lacks what `encode` keeps.
        """
        require_code(code, self.d_sae)
        x_hat = self.decode_scaled(code.values, code.indices)
        if self.normalization not in ROW_WISE:
            return x_hat * self.scale
        if code.statistics is None:
            raise LightsaeError(
                f"the code has no row statistics, {self.normalization} cannot be undone; "
                "those of encode have them"
            )
        return (x_hat * code.statistics[:, 1:] + code.statistics[:, :1]).to(x_hat.dtype)

    def decoded_change(self, change: Tensor, latents: Tensor | None, code: SparseCode) -> Tensor:
        """What a change of some activations changes in the reconstruction, [B, d_out].

        Args:
            change: Of each latent, [B, m].
            latents: Which, [m] int64; None for all.
            code: That of the rows, which has what they were normalised by.
        """
        rows = self.W_dec if latents is None else self.W_dec[latents]
        return (change @ rows) * self.output_factor(code)

    def output_factor(self, code: SparseCode) -> Tensor:
        """What decoded rows are multiplied by: a scalar, or [B, 1] where rows have their own."""
        return self.scale if code.statistics is None else code.statistics[:, 1:]

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruction of x, [B, d_in]; of a `Transcoder` that of its target, [B, d_out]."""
        return self.decode(self.encode(x), x)

    def pre_activations(self, x: Tensor) -> Tensor:
        """W_enc (x / scale - b_dec) + b_enc, dense, [B, d_sae]."""
        W_enc, b_enc, subtracted = self.encoder
        return nn.functional.linear(self.normalize(x).x - subtracted, W_enc, b_enc)

    @torch.no_grad()
    def project_decoder_gradient_(self) -> None:
        """Remove from the gradient of each decoder row its part along the row.

        Once per optimizer step: after gradients are summed over ranks, before they are clipped.
        """
        grad = self.W_dec.grad
        if grad is not None:
            along = torch.linalg.vecdot(grad, self.W_dec) / self.W_dec.square().sum(
                dim=1
            ).clamp_min(torch.finfo(grad.dtype).tiny)
            grad.addcmul_(along.unsqueeze(1), self.W_dec, value=-1)

    @torch.no_grad()
    def normalize_decoder_(self) -> None:
        """Bring every decoder row back to unit norm."""
        norms = torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True)
        self.W_dec.div_(norms.clamp_min_(torch.finfo(norms.dtype).tiny))


save_load.CLASSES[save_load.BASE] = SparseAutoencoder


def built(selection: Selection, d_sae: int) -> Selection:
    """A rule for a dictionary; what has tensors of its own, or sizes, is copied.

    Raises:
        LightsaeError: If its sizes do not fit the dictionary.
    """
    build = getattr(selection, "build", None)
    if build is not None or isinstance(selection, nn.Module):
        selection = copy.deepcopy(selection)
    if build is not None:
        selection.build(d_sae)  # type: ignore[attr-defined]
    return selection


def _require_tensor(x: object, d_in: int) -> None:
    """Refuse arrays and lists, which would fail deep inside."""
    if not isinstance(x, Tensor):
        raise LightsaeError(f"x is a {type(x).__name__}, expected a tensor [B, d_in = {d_in}]")


def require_code(code: object, d_sae: int) -> None:
    """Refuse what is no code of this dictionary."""
    if not isinstance(code, SparseCode):
        kind = type(code).__name__
        raise LightsaeError(f"code is a {kind}, expected a SparseCode, as encode gives it")
    if code.d_sae != d_sae:
        raise LightsaeError(f"the code has d_sae = {code.d_sae}, the autoencoder d_sae = {d_sae}")
