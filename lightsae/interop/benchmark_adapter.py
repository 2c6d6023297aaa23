"""An autoencoder as the suites SAEBench (0.6) and VISAEBench (0.1) take one."""

import copy
import re
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.interop.benchmark_config import BenchmarkConfig
from lightsae.sae import SparseAutoencoder, Transcoder
from lightsae.sae.normalization import ROW_WISE
from lightsae.sae.selection import BatchTopK, inference_rule

# What SAEBench calls a selection rule; of another it is told the rule's own name.
_ARCHITECTURES = {
    "TopK": "topk",
    "BatchTopK": "batch_topk",
    "JumpReLU": "jumprelu",
}


class BenchmarkAdapter(nn.Module):
    """The same function as an autoencoder, with dense codes, unit decoder rows and no scale.

        z = select(a) s n,  a = ReLU(W_enc_sae (x / s - b_dec_sae) + b_enc_sae),  s the scale, n the
        norms of the decoder's rows
        x_hat = z W_dec + b_dec
        z = (x - b_dec) W_enc + b_enc  where a latent is selected; x W_enc + b_enc if
        `cfg.apply_b_dec_to_input` is false, as it is in the autoencoder

    Latents are selected by the autoencoder itself, as its rule applies to new inputs, so that
    W_enc and b_enc are what the suites measure and not what codes are computed with. Nothing is
    trained: no parameter has a gradient.

    VISAEBench standardizes activations before it encodes them, unless it is told not to:
    `visaebench.evaluate(sae, ..., mean=torch.zeros(d_in), std=1.0)` gives an autoencoder the raw
    ones that it was trained on.

    Args:
        sae: Normalised by one scale or none. The adapter holds a copy of its own.
        model_name: The model whose activations these are, as the suite calls it; by default what
            the autoencoder's provenance says.
        hook_name: Where in it, as TransformerLens calls it, such as blocks.4.hook_resid_post; by
            default likewise.
        hook_layer: Number of the layer; by default the first number in `hook_name`.

    Attributes:
        W_enc: [d_in, d_sae].
        W_dec: [d_sae, d_in], rows of unit norm.
        b_enc: [d_sae].
        b_dec: [d_in], in the units of the inputs.
        cfg: What the suites ask of a configuration.

    Raises:
        LightsaeError: If it is a transcoder, inputs are normalised row by row, which a dense code
            cannot undo, codes depend on the batch, or model, place or layer are not told.

    Example:
        >>> from lightsae.sae import TopK
        >>> adapter = BenchmarkAdapter(SparseAutoencoder(4, 16, TopK(2)), "gpt2", "blocks.3.hook_x")
        >>> codes = adapter.encode(torch.randn(5, 7, 4))
        >>> codes.shape, adapter.decode(codes).shape, adapter.cfg.hook_layer
        (torch.Size([5, 7, 16]), torch.Size([5, 7, 4]), 3)
    """

    _strength: Tensor

    def __init__(
        self,
        sae: SparseAutoencoder,
        model_name: str | None = None,
        hook_name: str | None = None,
        hook_layer: int | None = None,
    ) -> None:
        super().__init__()
        _require_codes_alone(sae)
        self._sae = copy.deepcopy(sae).requires_grad_(False)
        W_enc, b_enc, W_dec, b_dec, scale = (
            getattr(sae, name).detach().double()
            for name in ("W_enc", "b_enc", "W_dec", "b_dec", "scale")
        )
        norms = torch.linalg.vector_norm(W_dec, dim=1)
        # A latent that writes nothing keeps its code.
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        self.W_enc = _fixed((W_enc * norms[:, None]).mT, sae)
        self.b_enc = _fixed(b_enc * norms * scale, sae)
        self.W_dec = _fixed(W_dec / norms[:, None], sae)
        self.b_dec = _fixed(b_dec * scale, sae)
        self.register_buffer("_strength", (norms * scale).to(sae.W_dec), persistent=False)
        self.cfg = _config(
            sae, _told(sae, "model", model_name), _told(sae, "hook", hook_name), hook_layer
        )
        self._tell_place()

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.W_dec.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters, of codes and of reconstructions."""
        return self.W_dec.dtype

    def encode(self, x: Tensor) -> Tensor:
        """Dense codes, [..., d_sae], of inputs [..., d_in] in any float dtype.

        Raises:
            ValueError: If the last dimension is not d_in.
        """
        rows = x.reshape(-1, x.shape[-1]).to(self.dtype)
        dense = self._sae.encode(rows).to_dense() * self._strength
        return dense.reshape(*x.shape[:-1], self.cfg.d_sae)

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstructions, [..., d_in], of any dense codes [..., d_sae], such as edited ones."""
        return codes.to(self.dtype) @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions of inputs, [..., d_in]."""
        return self.decode(self.encode(x))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast everything, what the configuration says of it too."""
        super()._apply(fn, recurse)
        self._tell_place()
        return self

    def _tell_place(self) -> None:
        self.cfg.dtype = str(self.dtype).removeprefix("torch.")
        self.cfg.device = str(self.device)


def _fixed(tensor: Tensor, like: SparseAutoencoder) -> nn.Parameter:
    return nn.Parameter(tensor.to(like.W_dec).contiguous(), requires_grad=False)


def _require_codes_alone(sae: SparseAutoencoder) -> None:
    """Refuse what a dense code of one row does not tell."""
    if isinstance(sae, Transcoder):
        raise LightsaeError("a benchmark of autoencoders takes no transcoder")
    if sae.normalization in ROW_WISE:
        raise LightsaeError(
            f"normalization is {sae.normalization}: a benchmark decodes codes alone, which do not "
            "have what each row was divided by; expected one scale for all rows"
        )
    if isinstance(inference_rule(sae.selection), BatchTopK):
        raise LightsaeError(
            "the threshold of BatchTopK was never learned: which latents of a row are active "
            "depends on its batch, and so would the benchmark"
        )


def _told(sae: SparseAutoencoder, key: str, given: str | None) -> str:
    """What was given, or else the provenance."""
    found = sae.provenance.get(key) if given is None else given
    if not isinstance(found, str):
        raise LightsaeError(f"{key}_name is not given, and the provenance does not tell it")
    return found


def _config(
    sae: SparseAutoencoder, model_name: str, hook_name: str, hook_layer: int | None
) -> BenchmarkConfig:
    if hook_layer is None:
        number = re.search(r"\d+", hook_name, re.ASCII)
        if number is None:
            raise LightsaeError(f"hook_name {hook_name!r} has no number: give hook_layer")
        hook_layer = int(number[0])
    rule = type(sae.selection).__name__
    name = _ARCHITECTURES.get(rule, rule)
    return BenchmarkConfig(
        model_name=model_name,
        d_in=sae.d_in,
        d_sae=sae.d_sae,
        hook_layer=hook_layer,
        hook_name=hook_name,
        architecture=name,
        apply_b_dec_to_input=sae.apply_b_dec_to_input,
        activation_fn_str=name,
        activation_fn_kwargs={"k": sae.selection.k},
    )
