import os
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from lightsae.activations.extraction.images.shared_memory_transfer import packed
from lightsae.activations.extraction.models import Inputs

SMALL = torch.arange(6).view(2, 3)
LARGE = torch.rand(300, 1000, generator=torch.Generator().manual_seed(0))


def _sent(inputs: Inputs) -> Inputs:
    found: Inputs = pickle.loads(ForkingPickler.dumps(packed(inputs)))
    return found


@pytest.mark.parametrize(
    "tensor",
    [SMALL, SMALL > 2, SMALL[:0], LARGE, LARGE.bfloat16(), LARGE.double(), LARGE.mT, LARGE > 0.5],
    ids=["small", "small-bool", "empty", "fp32", "bf16", "fp64", "transposed", "bool"],
)
def test_a_tensor_arrives_as_it_was(tensor: torch.Tensor) -> None:
    found = _sent(tensor)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == tensor.dtype
    assert torch.equal(found, tensor)
    found += 0 if tensor.dtype != torch.bool else False  # it may be written to


def test_keyword_arguments_arrive_each() -> None:
    found = _sent({"mask": SMALL, "input": LARGE})
    assert isinstance(found, dict)
    assert torch.equal(found["input"], LARGE)
    assert torch.equal(found["mask"], SMALL)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="the system lists no open files")
def test_no_file_stays_open() -> None:
    _sent(LARGE)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        _sent(LARGE)
    assert len(os.listdir("/proc/self/fd")) == before
