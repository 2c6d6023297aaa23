import pytest
import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.metrics import DownstreamLoss, downstream_loss

LABELS = torch.tensor([0, 1, 2, 1, 0, 2, 2])


def activations() -> Tensor:
    return torch.randn(7, 4, generator=torch.Generator().manual_seed(0))


def head() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def test_the_activations_themselves_recover_everything() -> None:
    x = activations()
    losses = downstream_loss(head(), LABELS, 3, x_hat=x, x=x)
    assert losses.recovered == 1
    assert losses.reconstructed == losses.original


def test_the_mean_recovers_nothing() -> None:
    x = activations()
    losses = downstream_loss(head(), LABELS, 3, x_hat=x.mean(0).expand_as(x), x=x)
    torch.testing.assert_close(losses.reconstructed, losses.mean_ablated, rtol=1e-6, atol=0)
    assert abs(losses.recovered) < 1e-5


def test_a_head_that_reads_nothing_has_nothing_to_recover() -> None:
    constant = head()
    nn.init.zeros_(constant.weight)
    losses = downstream_loss(constant, LABELS, 3, x_hat=-activations(), x=activations())
    assert losses.recovered.isnan()


def test_it_is_the_cross_entropy_of_torch() -> None:
    x, x_hat = activations(), activations() * 0.7
    losses = downstream_loss(head(), LABELS, 3, x_hat=x_hat, x=x)
    for rows, found in ((x, losses.original), (x_hat, losses.reconstructed)):
        expected = nn.functional.cross_entropy(head()(rows).double(), LABELS)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_the_head_computes_in_its_own_dtype_and_keeps_no_gradient() -> None:
    metric = DownstreamLoss(head().double(), 4, 3)
    metric.update(LABELS, x_hat=activations().half(), x=activations().half())
    losses = metric.compute()
    assert losses.original.dtype == torch.float64
    assert not losses.original.requires_grad


@pytest.mark.parametrize(
    ("labels", "n_classes", "told"),
    [
        (LABELS[:3], 3, r"labels has shape \[3\], expected \[7\]"),
        (LABELS, 2, r"labels must lie in \[0, n_classes = 2\)"),
        (LABELS, 4, r"head gave shape \[7, 3\], expected \[7, 4\]"),
        (LABELS.double(), 3, "labels is torch.float64, expected integers"),
    ],
)
def test_what_does_not_fit_is_named(labels: Tensor, n_classes: int, told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        downstream_loss(head(), labels, n_classes, x_hat=activations(), x=activations())
