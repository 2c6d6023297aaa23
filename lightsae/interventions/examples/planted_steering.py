"""A steering whose answer is known: `lightsae steer --config configs/steering/planted.yaml`.

One latent makes an alarm ring. Others go with the label too, but feed what is guarded.
"""

import torch
from torch import Tensor, nn

from lightsae.interventions.steering import Examples, GuardLimit, Measured, SteeringTask
from lightsae.interventions.steering.task import Split
from lightsae.sae import SparseAutoencoder, TopK

D_IN = 24
CAUSE, USEFUL = 3, (5, 6)


class PlantedTask(SteeringTask):
    """A layer of 24 features, an autoencoder that has each as a latent, and two outputs.

    The alarm rings where feature 3 is above 0.5; feature 3 is on for label 1 alone. Features 5 and
    6 go with the label most of the time, and their sum is a guard that may not fall.

    Args:
        works: Whether the alarm hears the layer at all; if not, nothing can steer it.
        samples: Per split.
        seed: Of the samples.

    Example:
        >>> PlantedTask().measure("test")["alarm"].value
        0.5
    """

    target = "alarm"
    target_falls = True

    def __init__(self, works: bool = True, samples: int = 200, seed: int = 0) -> None:
        self.model = _Alarm(works).eval()
        self.saes = {"layer": _identity(D_IN)}
        self.guards = {"useful": GuardLimit(fall=0.1)}
        generator = torch.Generator().manual_seed(seed)
        self.data = {split: _samples(samples, generator) for split in ("find", "choice", "test")}

    def examples(self) -> Examples:
        """Activations and labels of the split "find"."""
        x, labels = self.data["find"]
        return Examples([{"x": x}], labels.numpy())

    def measure(self, split: Split) -> dict[str, Measured]:
        """The alarm, as a rate, and the mean of what is useful."""
        x, _ = self.data[split]
        alarm, useful = self.model(x)
        ones = torch.ones(len(x))
        return {"alarm": Measured(alarm, ones), "useful": Measured(useful, ones)}


class _Alarm(nn.Module):
    def __init__(self, works: bool) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.works = works

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the alarm rings, and what is useful, [B] each."""
        seen = self.layer(x)
        heard = seen if self.works else x
        return (heard[:, CAUSE] > 0.5).float(), seen[:, list(USEFUL)].sum(dim=1)


def _samples(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features that are on at random, and labels, half of them 1."""
    labels = torch.arange(n) % 2
    on = torch.rand(n, D_IN, generator=generator) < 0.5
    on[:, CAUSE] = labels == 1
    for feature in USEFUL:
        strays = torch.rand(n, generator=generator) < 0.2
        on[:, feature] = (labels == 1) ^ strays
    return (0.8 + 0.4 * torch.rand(n, D_IN, generator=generator)) * on, labels


def _identity(d_in: int) -> SparseAutoencoder:
    """The autoencoder whose latents are the features."""
    sae = SparseAutoencoder(d_in, d_in, TopK(d_in), normalization="none")
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(d_in))
        sae.W_dec.copy_(torch.eye(d_in))
    return sae.eval()
