"""The transcoder: encodes one layer and reconstructs another (arXiv 2406.11944, 2501.18823)."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.sae import save_load
from lightsae.sae.autoencoder import SparseAutoencoder, require_code
from lightsae.sae.initialization import Centre
from lightsae.sae.normalization import Normalization
from lightsae.sae.selection import Selection
from lightsae.sae.sparse_code import SparseCode

# What is done to targets where inputs are normalised by row.
_OF_TARGETS: dict[str, Normalization] = {
    "layer_norm": "centre_scale",
    "layer_norm_unbiased": "centre_scale",
    "unit_norm": "variance",
}


@dataclass(frozen=True)
class TranscoderOptions:
    """What makes an autoencoder that is to be built a transcoder.

    Attributes:
        skip: Add a linear map of the input.
        d_out: Width of the targets; taken from the data when left out, and checked if given.

    Raises:
        LightsaeError: If d_out is smaller than 1.
    """

    skip: bool = False
    d_out: int | None = None

    def __post_init__(self) -> None:
        if self.d_out is not None and self.d_out < 1:
            raise LightsaeError(f"d_out must be at least 1, got {self.d_out}")


class Transcoder(SparseAutoencoder):
    """Reconstructs the activations y of one layer from those x of another.

        u = x / scale - b_in
        a = ReLU(W_enc u + b_enc)
        y_hat = target_scale (select(a) W_dec + b_dec + W_skip u)

    x may be the input and y the output of a part of the model, such as an MLP (arXiv 2406.11944);
    with `skip` the latents are left what no linear map explains (arXiv 2501.18823).

    Encoder and decoder rows are drawn apart, since they lie in different spaces; decoder rows have
    unit norm. W_skip starts as 0. `initialize_` sets the scales, and b_in and b_dec as the centres
    of x and y; b_in is no parameter. Rows of the input may be normalised one by one, as before an
    MLP. What a row of the target would have to be multiplied by is not known from x, so then the
    targets have a single scale, by which they are about as long: "centre_scale" with a layer norm,
    "variance" with unit_norm.

    Args:
        d_in: Width of the inputs.
        d_sae: Size of the dictionary.
        selection: Which latents stay; by default `TopK(32)`.
        normalization: What is done to inputs before they are encoded; targets are treated alike,
            unless it is by row.
        d_out: Width of the targets; d_in if left out.
        skip: Add a linear map of the input.

    Attributes:
        W_enc: Encoder, [d_sae, d_in].
        b_enc: Encoder bias, [d_sae].
        W_dec: Decoder, [d_sae, d_out].
        b_dec: Decoder bias in units of target_scale, [d_out].
        W_skip: The linear map, [d_out, d_in], or None.
        b_in: Centre of the normalised inputs, buffer [d_in].
        scale: What inputs are divided by, scalar buffer.
        target_scale: What targets are divided by, scalar buffer.

    Raises:
        LightsaeError: If a size is smaller than 1 or k larger than d_sae.

    Example:
        >>> from lightsae.sae import TopK
        >>> transcoder = Transcoder(d_in=8, d_sae=32, selection=TopK(4), d_out=6, skip=True)
        >>> x, y = torch.randn(100, 8), torch.randn(100, 6)
        >>> transcoder.initialize_(x, targets=y)
        >>> transcoder(x).shape, transcoder.encode(x).values.shape
        (torch.Size([100, 6]), torch.Size([100, 4]))
    """

    b_in: Tensor
    target_scale: Tensor
    W_skip: nn.Parameter | None

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        selection: Selection | None = None,
        normalization: Normalization = "variance",
        d_out: int | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__(d_in, d_sae, selection, normalization, apply_b_dec_to_input=False)
        d_out = d_in if d_out is None else d_out
        if d_out < 1:
            raise LightsaeError(f"d_out must be at least 1, got {d_out}")
        self.W_dec = nn.Parameter(nn.functional.normalize(torch.randn(d_sae, d_out), dim=1))
        self.b_dec = nn.Parameter(torch.zeros(d_out))
        self.register_parameter("W_skip", nn.Parameter(torch.zeros(d_out, d_in)) if skip else None)
        self.register_buffer("b_in", torch.zeros(d_in))
        self.register_buffer("target_scale", torch.ones(()))

    @property
    def encoder(self) -> tuple[Tensor, Tensor, Tensor]:
        """W_enc, b_enc and what is subtracted from inputs."""
        return self.W_enc, self.b_enc, self.b_in

    @torch.no_grad()
    def initialize_(
        self, sample: Tensor, centre: Centre = "mean", targets: Tensor | None = None
    ) -> None:
        """Set scales and centres from a sample of the data.

        Args:
            sample: Inputs, [rows, d_in].
            centre: What b_in is and b_dec starts as.
            targets: Targets, [rows, d_out]; of the same rows or others.

        Raises:
            LightsaeError: If there are no targets, or a sample has another width, is empty or
                constant, has NaN or inf, or does not fit into the dtype of the parameters.
        """
        if targets is None:
            raise LightsaeError("a transcoder is initialized from inputs and targets: give targets")
        kind = _OF_TARGETS.get(self.normalization, self.normalization)
        inputs = self.scale_and_centre(sample, centre, self.normalization, ("d_in", self.d_in))
        outputs = self.scale_and_centre(targets, centre, kind, ("d_out", self.d_out))
        for (scale, middle), of_scale, of_middle in (
            (inputs, self.scale, self.b_in),
            (outputs, self.target_scale, self.b_dec),
        ):
            of_scale.copy_(scale)
            of_middle.copy_(middle)

    def normalize_targets(self, targets: Tensor) -> Tensor:
        """Targets [B, d_out] as the loss compares them."""
        return targets / self.target_scale

    def left_to_code(self, x: Tensor, targets: Tensor) -> Tensor:
        """What the latents have to reconstruct: the targets, less what the skip explains of them.

        Args:
            x: Normalised inputs, [B, d_in].
            targets: Normalised targets, [B, d_out].
        """
        return targets if self.W_skip is None else targets - self._skipped(x)

    def _skipped(self, x: Tensor) -> Tensor:
        """W_skip (x - b_in) of normalised inputs, [B, d_out]."""
        assert self.W_skip is not None
        return nn.functional.linear(x - self.b_in, self.W_skip)

    def residual_in_units_of(self, x: Tensor, residual: Tensor) -> Tensor:
        """A residual of normalised targets in the units of the targets themselves.

        Args:
            x: The targets, [B, d_out].
            residual: What their normalised form has left unexplained, [B, d_out].

        Returns:
            y - y_hat, [B, d_out].
        """
        return residual * self.target_scale

    def decode(self, code: SparseCode, x: Tensor | None = None) -> Tensor:
        """Reconstruction of the targets in their own units, [B, d_out].

        Args:
            code: As `encode` gives it.
            x: The inputs that it is of, [B, d_in]; needed with a skip.

        Raises:
            LightsaeError: If the code is none of this dictionary, or x is missing.
        """
        require_code(code, self.d_sae)
        y_hat = self.decode_scaled(code.values, code.indices)
        if self.W_skip is not None:
            if x is None:
                raise LightsaeError("with a skip, a code is decoded with its inputs: give x")
            y_hat = y_hat + self._skipped(self.normalize(x).x)
        return y_hat * self.target_scale

    def output_factor(self, code: SparseCode) -> Tensor:
        """What decoded rows are multiplied by, a scalar."""
        return self.target_scale

    def _settings(self) -> dict[str, Any]:
        kept = {"class": "Transcoder", "d_out": self.d_out, "skip": self.W_skip is not None}
        return {**super()._settings(), **kept}

    @classmethod
    def _from_settings(
        cls, settings: dict[str, Any], selection: Selection, kind: Normalization
    ) -> Self:
        for key, expected in (("d_out", int), ("skip", bool)):
            if type(settings.get(key)) is not expected:
                raise LightsaeError(f"key {key!r} is missing or not of type {expected.__name__}")
        sizes = settings["d_in"], settings["d_sae"]
        return cls(*sizes, selection, kind, d_out=settings["d_out"], skip=settings["skip"])


save_load.CLASSES["Transcoder"] = Transcoder
