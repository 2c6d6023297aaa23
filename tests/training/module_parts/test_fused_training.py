"""Training with the interpreted kernels follows training with the definition."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import backends
from sklearn.datasets import load_digits

from lightsae.sae import L1L2Ratio, OffSupportL1, SparseAutoencoder, TopK, objective

pytest.importorskip("triton")
if torch.cuda.is_available():
    pytest.skip("the kernels are not interpreted where there is a GPU", allow_module_level=True)

STEPS, ROWS = 20, 16
# Of the demo.
D_SAE, K, LR = 128, 16, 2e-3


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], set[str]]:
    """Names the backend to take; the set returned fills with the modules that were taken."""

    def choose(name: str) -> set[str]:
        taken = set()

        def chosen(_: str, tensor: torch.Tensor, **sizes: Any) -> Any:
            module = backends.choose_backend(name, tensor, **sizes)
            taken.add(module.__name__)
            return module

        for operations in ("encode", "decode"):
            monkeypatch.setattr(f"lightsae_kernels.{operations}.choose_backend", chosen)
        return taken

    return choose


def losses(regularizer: Any) -> list[float]:
    torch.manual_seed(0)
    x = torch.tensor(load_digits().data, dtype=torch.float32)
    x = (x - x.mean(dim=0)) / (x - x.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    sae = SparseAutoencoder(x.shape[1], D_SAE, TopK(K))
    optimizer = torch.optim.Adam(sae.parameters(), lr=LR)
    found = []
    for step in range(STEPS):
        parts = objective(sae, x[step * ROWS : (step + 1) * ROWS], regularizer=regularizer)
        optimizer.zero_grad()
        parts.loss.backward()
        sae.project_decoder_gradient_()
        optimizer.step()
        sae.normalize_decoder_()
        found.append(parts.loss.item())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("regularizer", [OffSupportL1(1e-2), L1L2Ratio(3e-2)])
def test_twenty_steps_of_the_demo_follow_the_definition(
    regularizer: Any, use: Callable[[str], set[str]]
) -> None:
    taken = use("triton")
    fused = losses(regularizer)
    assert taken == {"lightsae_kernels.fused"}
    use("reference")
    assert fused == pytest.approx(losses(regularizer), rel=1e-4)
    assert fused[-1] < 0.9 * fused[0]
