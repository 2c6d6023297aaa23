"""An autoencoder inside a compiled or exported model: one graph, and the numbers of eager."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import Unsupported, UserError
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed import destroy_process_group, group, init_process_group
from torch.export import Dim

from lightsae.sae import AuxK, L1L2Ratio, OffSupportL1, SparseAutoencoder, TopK, objective
from lightsae.sae.regularizers import Regularizer

from .helpers import untied

D_IN, D_SAE, K = 6, 40, 3


class SquaredOffSupport(Regularizer):
    """A user's own, which has no fused operation."""

    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        return (a.scatter(1, indices, 0.0) * batch_active).square().sum(dim=1).mean()


CASES: dict[str, Regularizer | None] = {
    "none": None,
    "reg1": OffSupportL1(0.3),
    "reg1-unmasked": OffSupportL1(0.3, batch_active_only=False),
    "reg2": L1L2Ratio(0.2),
    "user": SquaredOffSupport(0.1),
}


class Network(nn.Module):
    """Layers around an autoencoder; the loss is of the task and of the autoencoder."""

    def __init__(self, regularizer: Regularizer | None = None) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(4, D_IN).double(), nn.Linear(D_IN, 2).double()
        self.sae = untied(D_IN, D_SAE, K)
        self.regularizer = regularizer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.before(x)
        code = self.sae.encode(h)
        return self.after(self.sae.decode(code)), self.sae(h), code.values

    def loss(self, x: Tensor) -> Tensor:
        return objective(self.sae, self.before(x), regularizer=self.regularizer).loss


@pytest.fixture(autouse=True)
def nothing_compiled_yet() -> Iterator[None]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)],
)
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device(request.param)


def compiled(function: Callable[..., Any], backend: Any = "aot_eager") -> Callable[..., Any]:
    graph: Callable[..., Any] = torch.compile(function, backend=backend, fullgraph=True)
    return graph


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name, e in expected.items():
        a = actual[name]
        assert a.dtype == e.dtype, f"{name} is {a.dtype}, not {e.dtype}"
        torch.testing.assert_close(
            a, e, rtol=tolerance, atol=tolerance, msg=lambda said, name=name: f"{name}: {said}"
        )


def gradients(network: Network, loss: Tensor) -> dict[str, Tensor]:
    parameters = dict(network.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    named = zip(parameters, found, strict=True)
    return {"loss": loss.detach(), **{name: g for name, g in named if g is not None}}


def batch(rows: int, device: torch.device | str = "cpu") -> Tensor:
    return torch.randn(rows, 4, dtype=torch.float64, device=device)


def test_outputs_and_gradients_of_a_model_are_those_of_eager() -> None:
    network, x = Network(), batch(7)

    def total(forward: Callable[[Tensor], tuple[Tensor, ...]]) -> dict[str, Tensor]:
        outputs = forward(x)
        weights = [torch.linspace(1, 2, t.numel(), dtype=t.dtype).view_as(t) for t in outputs]
        loss = torch.stack([(t * w).sum() for t, w in zip(outputs, weights, strict=True)]).sum()
        outputs_by_name = dict(zip(("y", "x_hat", "values"), outputs, strict=True))
        return {**outputs_by_name, **gradients(network, loss)}

    # Sums of another order in float64.
    assert_same(total(compiled(network)), total(network), 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_objective_and_its_gradients_are_those_of_eager(
    case: str, device: torch.device
) -> None:
    network, x = Network(CASES[case]).to(device), batch(9, device)
    if device.type == "cuda":
        network, x = network.float(), x.float()
    expected = gradients(network, network.loss(x))
    assert len(expected) == 7
    tolerance = 1e-12 if device.type == "cpu" else 1e-5
    assert_same(gradients(network, compiled(network.loss)(x)), expected, tolerance)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")
def test_inductor_makes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    network, x = Network(CASES["reg2"]), batch(9)
    expected = gradients(network, network.loss(x))
    assert_same(gradients(network, compiled(network.loss, "inductor")(x)), expected, 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_sizes_of_batches_are_compiled_once_more_and_never_again(case: str) -> None:
    network, counter = Network(CASES[case]), CompileCounterWithBackend("aot_eager")
    graph = compiled(network.loss, counter)
    for rows in (12, 7, 9, 31, 2):
        x = batch(rows)
        expected = gradients(network, network.loss(x))
        assert_same(gradients(network, graph(x)), expected, 1e-12)
    assert counter.frame_count == 2


# Where a graph breaks, torch looks at the gradients of what the next one takes over.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_aux_k_leaves_the_graph_and_stays_the_same() -> None:
    network, x, dead = Network(CASES["reg1"]), batch(9), torch.arange(D_SAE) % 2 == 0

    def loss(x: Tensor) -> Tensor:
        h, aux_k = network.before(x), AuxK(k_aux=2)
        return objective(network.sae, h, aux_k=aux_k, dead=lambda encoded: dead).loss

    expected = gradients(network, loss(x))
    graph = torch.compile(loss, backend="aot_eager")
    assert_same(gradients(network, graph(x)), expected, 1e-12)
    torch._dynamo.reset()
    with pytest.raises(UserError, match="data-dependent"):
        compiled(loss)(x)


def test_codes_go_in_and_out_of_a_graph() -> None:
    sae = untied(D_IN, D_SAE, K).requires_grad_(False)
    x = torch.randn(5, D_IN, dtype=torch.float64)
    code, expected = compiled(sae.encode)(x), sae.encode(x)
    assert torch.equal(code.values, expected.values)
    assert torch.equal(code.indices, expected.indices)
    assert code.d_sae == D_SAE
    assert torch.equal(compiled(sae.decode)(code), sae(x))
    assert torch.equal(compiled(lambda code: code.to_dense())(code), code.to_dense())
    assert compiled(lambda code: code.l0())(code).tolist() == code.l0().tolist()


def test_another_width_is_refused_with_the_words_of_eager() -> None:
    with pytest.raises(Unsupported, match=r"x must be \[B, d_in = 6\] \(flatten tokens first\)"):
        compiled(untied(D_IN, D_SAE, K).encode)(torch.zeros(2, 5, dtype=torch.float64))


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_model_is_one_graph_for_any_batch(strict: bool) -> None:
    network = Network().eval()
    program = torch.export.export(
        network, (batch(4),), dynamic_shapes={"x": {0: Dim("B", min=0)}}, strict=strict
    )
    operators = [str(node.target) for node in program.graph.nodes if "lightsae" in str(node.target)]
    assert operators == ["lightsae.encode_topk.default", "lightsae.sparse_decode.default"] * 2
    for rows in (0, 1, 11):
        x = batch(rows)
        for actual, expected in zip(program.module()(x), network(x), strict=True):
            assert torch.equal(actual, expected)


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_encoder_returns_codes(strict: bool) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sae = untied(D_IN, D_SAE, K)

        def forward(self, x: Tensor) -> Any:
            return self.sae.encode(x)

    encoder, x = Encoder().eval(), torch.randn(5, D_IN, dtype=torch.float64)
    code = torch.export.export(encoder, (x,), strict=strict).module()(x)
    assert torch.equal(code.to_dense(), encoder(x).to_dense())


@pytest.mark.slow
def test_a_saved_program_runs_where_only_the_kernels_are_imported(tmp_path: Path) -> None:
    network, x = Network().eval(), batch(5)
    program = torch.export.export(network, (batch(4),), dynamic_shapes={"x": {0: Dim.DYNAMIC}})
    torch.export.save(program, tmp_path / "network.pt2")
    torch.save(x, tmp_path / "x.pt")
    script = """
import sys, torch, lightsae_kernels
program = torch.export.load("network.pt2")
torch.save(program.module()(torch.load("x.pt")), "found.pt")
assert "lightsae" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=300)
    for actual, expected in zip(torch.load(tmp_path / "found.pt"), network(x), strict=True):
        assert torch.equal(actual, expected)


def test_the_example_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text()
    (example,) = (
        part.split("```")[0]
        for part in text.split("```python\n")[1:]
        if "torch.export.save" in part
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    x = torch.randn(11, 32)
    loaded = torch.export.load("model.pt2").module()
    assert torch.equal(loaded(x), names["model"](x))


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    x, sae = torch.eye(2, dtype=torch.float64)[rank : rank + 1], SparseAutoencoder(2, 4, TopK(1))
    sae = sae.double()
    sae.load_state_dict({**sae.state_dict(), "W_enc": torch.eye(4, 2).double()})

    def parts(ranks: Any) -> Any:
        return objective(sae, x, regularizer=OffSupportL1(0.1), process_group=ranks)

    eager = parts(group.WORLD)
    graph = compiled(parts)(group.WORLD)
    found = {
        "penalty": (graph.penalty.item(), eager.penalty.item()),
        "mask": graph.encoded.batch_active.tolist(),
    }
    torch.save(found, folder / f"{rank}.pt")
    destroy_process_group()


@pytest.mark.slow
def test_a_graph_unites_the_masks_of_the_ranks(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, args=(tmp_path,), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found["mask"] == [True, True, False, False]
        assert found["penalty"][0] == found["penalty"][1]
