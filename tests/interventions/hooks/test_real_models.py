"""Models of timm and torchvision, compiled ones, and several processes."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed import destroy_process_group, init_process_group

from lightsae.interventions import Scale, ZeroAblate, attach

from .models import Tokens, identity_sae, random_sae


def test_a_vision_transformer_of_timm():
    import timm

    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=3, num_classes=5, pretrained=False
    ).eval()
    x = torch.randn(2, 3, 32, 32)
    saes = {"blocks.0": random_sae(192, 256, 8), "blocks.2": random_sae(192, 256, 8)}
    with torch.no_grad():
        bare = model(x)
        with attach(model, saes) as attached:
            with attached.record() as recording:
                assert torch.equal(model(x), bare)
            assert recording["blocks.0"].lead == (2, 5)
            latent = int(recording["blocks.2"].code.indices[0, 0])
            with attached.edit(ZeroAblate([latent]), "blocks.2", positions=[0]):
                edited = model(x)
    assert not torch.equal(edited[0], bare[0])


def test_a_convolutional_network_of_torchvision():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18(weights=None).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), attach(model, {"layer2": random_sae(128, 256, 8)}) as attached:
        with attached.record() as recording:
            bare = model(x)
        with attached.edit(Scale(None, 2.0)):
            edited = model(x)
    assert recording["layer2"].lead == (2, 4, 4)
    assert torch.equal(bare, model(x).detach())
    assert not torch.equal(edited, bare)


@pytest.mark.slow
def test_a_model_compiled_before_runs_as_it_was_written_and_says_so():
    torch.manual_seed(0)
    model, x = Tokens(), torch.randn(2, 3, 6)
    compiled = torch.compile(model, backend="eager")
    bare = compiled(x)
    with (
        pytest.warns(UserWarning, match="was compiled before its autoencoders were attached"),
        attach(compiled, {"layer": identity_sae(8, torch.float32)}) as attached,
        attached.edit(Scale(None, 2.0)),
    ):
        found = compiled(x)
    torch.testing.assert_close(found, model.head(2 * model.layer(x)))
    assert torch.equal(compiled(x), bare)
    model.compile(backend="eager")
    bare = model(x)
    with (
        pytest.warns(UserWarning, match="was compiled before its autoencoders were attached"),
        attach(model, {"layer": identity_sae(8, torch.float32)}) as attached,
        attached.edit(Scale(None, 2.0)),
    ):
        assert not torch.equal(model(x), bare)
    assert torch.equal(model(x), bare)
    torch.compiler.reset()


@pytest.mark.slow
@torch.no_grad()
def test_a_model_compiled_inside_the_block_is_edited_and_runs_bare_after_it():
    torch.manual_seed(0)
    model, x = Tokens(), torch.randn(2, 3, 6)
    bare = model(x)
    with attach(model, {"layer": identity_sae(8, torch.float32)}) as attached:
        compiled = torch.compile(model, backend="eager")
        assert torch.equal(compiled(x), bare)
        with attached.edit(Scale(None, 2.0)):
            found = compiled(x)
    torch.testing.assert_close(found, model.head(2 * model.layer(x)))
    assert torch.equal(compiled(x), bare)
    torch.compiler.reset()


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Of each parameter, with latent 1 times three."""
    with attach(model, {"layer": identity_sae(8)}) as attached, attached.edit(Scale([1], 3.0)):
        model(x).square().mean().backward()
    return [parameter.grad for parameter in model.parameters()]


def data() -> tuple[Tokens, torch.Tensor]:
    torch.manual_seed(0)
    return Tokens().double(), torch.randn(4, 3, 6, dtype=torch.float64)


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model, x = data()
    found = gradients(nn.parallel.DistributedDataParallel(model), x[rank::2])
    torch.save(found, folder / f"{rank}.pt")
    destroy_process_group()


@pytest.mark.slow
def test_two_ranks_of_data_parallel_training_equal_one_process(tmp_path):
    torch.multiprocessing.spawn(work, args=(tmp_path,), nprocs=2)
    model, x = data()
    expected = gradients(model, x)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for (name, _), one, two in zip(model.named_parameters(), found, expected, strict=True):
            torch.testing.assert_close(one, two, msg=lambda text, name=name: f"{name}: {text}")
