"""A fault met on a device is raised once, by whoever looks next."""

from collections.abc import Iterator

import pytest
import torch
from lightsae_kernels import ArgumentError, fault_flags, raise_if_flagged

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def lowered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fault_flags, "_flags", {})
    monkeypatch.setattr(fault_flags, "_faults", {})
    yield


def test_a_fault_of_one_operation_is_raised_by_the_next_of_any() -> None:
    fault_flags.flag_on(CPU, "encode_topk").told.fill_(1)
    with pytest.raises(ArgumentError, match="encode_topk met NaN, inf or an index outside"):
        fault_flags.flag_on(CPU, "sparse_decode")


def test_one_fault_is_told_once() -> None:
    encoder, decoder = (fault_flags.flag_on(CPU, name) for name in ("encode_topk", "sparse_decode"))
    for t in (*encoder, *decoder):
        t.fill_(1)
    with pytest.raises(ArgumentError, match="encode_topk met"):
        raise_if_flagged()
    raise_if_flagged()
    assert not any(t.any() for t in (*encoder, *decoder))


def test_a_flag_made_in_inference_mode_serves_outside_of_it() -> None:
    with torch.inference_mode():
        flag = fault_flags.flag_on(CPU, "encode_topk")
    for t in flag:
        t.fill_(1)
    with pytest.raises(ArgumentError):
        raise_if_flagged()


def test_a_default_device_does_not_move_the_flag() -> None:
    with torch.device("meta"):
        assert {t.device for t in fault_flags.flag_on(CPU, "encode_topk")} == {CPU}


def test_operations_of_a_device_share_its_fault() -> None:
    encoder, decoder = (fault_flags.flag_on(CPU, name) for name in ("encode_topk", "sparse_decode"))
    assert encoder.told is not decoder.told
    assert encoder.fault is decoder.fault is fault_flags.fault_on(CPU)


def test_a_fault_of_another_process_is_raised_where_the_host_waits() -> None:
    fault_flags.flag_on(CPU, "encode_topk").fault.fill_(1)
    with pytest.raises(ArgumentError, match="another process met NaN, inf or an index outside"):
        raise_if_flagged()
    raise_if_flagged()
