"""Small models and autoencoders whose edits have a closed form."""

import torch
from torch import Tensor, nn

from lightsae.sae import SparseAutoencoder, TopK


def identity_sae(d: int, dtype: torch.dtype = torch.float64) -> SparseAutoencoder:
    """Latent i is feature i where that is positive: the code of a positive x is x itself."""
    sae = SparseAutoencoder(d, d, TopK(d), normalization="none").to(dtype)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(d))
        sae.W_dec.copy_(torch.eye(d))
    return sae


def random_sae(d_in: int, d_sae: int, k: int, **options: object) -> SparseAutoencoder:
    sae = SparseAutoencoder(d_in, d_sae, TopK(k), **options)  # type: ignore[arg-type]
    with torch.no_grad():
        sae.b_dec.normal_(std=0.1)
        sae.b_enc.normal_(std=0.1)
        sae.scale.fill_(1.7)
    return sae


class Tokens(nn.Module):
    """[B, T, 6] through a layer of positive outputs to [B, T, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(6, 8), nn.Softplus())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x))


class MaskedTokens(Tokens):
    """The mean of `Tokens` over what is no padding, [B, 4]; padding is looked at by the layer."""

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        kept = attention_mask.unsqueeze(2).to(x)
        return (super().forward(x) * kept).sum(1) / kept.sum(1)


def ragged(samples: int = 9, places: int = 5) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Sequences for `MaskedTokens` in one padded batch, and each alone without padding."""
    x = torch.randn(samples, places, 6, dtype=torch.float64)
    lengths = torch.arange(samples) % places + 1
    mask = (torch.arange(places) < lengths.unsqueeze(1)).long()
    alone = [
        {"x": each[:n].unsqueeze(0), "attention_mask": torch.ones(1, n, dtype=torch.long)}
        for each, n in zip(x, lengths.tolist(), strict=True)
    ]
    return {"x": x, "attention_mask": mask}, alone
