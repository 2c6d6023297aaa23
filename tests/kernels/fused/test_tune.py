"""Tiles are timed once, where asked for, and remembered across processes."""

import json
from pathlib import Path

import pytest
import torch

tune = pytest.importorskip("lightsae_kernels.fused.tune")
from lightsae_kernels.fused.configs import PRODUCT, ProductConfig  # noqa: E402

OPTIONS = PRODUCT[90, 2]


class Clock:
    """Pretends that an option is the fastest, and counts how often it is asked."""

    def __init__(self, fastest: ProductConfig) -> None:
        self.fastest, self.asked = fastest, 0

    def __call__(self, config: ProductConfig) -> float:
        self.asked += 1
        return 1.0 if config == self.fastest else 2.0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTSAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tune, "_remembered", {})
    return tmp_path / "cache" / "tuned.json"


def test_the_fastest_is_kept_and_timed_only_once(cache: Path) -> None:
    clock = Clock(OPTIONS[2])
    assert tune.tuned("shape", OPTIONS, clock) == tune.tuned("shape", OPTIONS, clock) == OPTIONS[2]
    assert clock.asked == len(OPTIONS)
    assert json.loads(cache.read_text()) == {"shape": list(OPTIONS[2])}


def test_the_next_process_does_not_time_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune.tuned("shape", OPTIONS, Clock(OPTIONS[1]))
    monkeypatch.setattr(tune, "_remembered", {})
    clock = Clock(OPTIONS[0])
    assert tune.tuned("shape", OPTIONS, clock) == OPTIONS[1]
    assert clock.asked == 0


@pytest.mark.parametrize("text", ["", "[1]", '{"shape": 3}', '{"shape": [1, 2, 3, 4, 5, 6]}'])
def test_a_file_that_makes_no_sense_is_replaced(cache: Path, text: str) -> None:
    cache.parent.mkdir()
    cache.write_text(text)
    assert tune.tuned("shape", OPTIONS, Clock(OPTIONS[1])) == OPTIONS[1]
    assert json.loads(cache.read_text())["shape"] == list(OPTIONS[1])


def test_other_shapes_stay_in_the_file(cache: Path) -> None:
    tune.tuned("one", OPTIONS, Clock(OPTIONS[1]))
    tune.tuned("other", OPTIONS, Clock(OPTIONS[2]))
    assert set(json.loads(cache.read_text())) == {"one", "other"}


def test_a_folder_that_cannot_be_written_only_costs_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIGHTSAE_CACHE", str(tmp_path / "file"))
    assert tune.tuned("shape", OPTIONS, Clock(OPTIONS[1])) == OPTIONS[1]


def test_the_interpreter_has_one_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTSAE_AUTOTUNE", "1")
    config = tune.product_config(torch.zeros(4, 8), torch.zeros(16, 8))
    assert config == tune.product_configs(torch.device("cpu"), torch.float32, 8)[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_times_its_table(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTSAE_AUTOTUNE", "1")
    x = torch.randn(256, 64, device="cuda", dtype=torch.bfloat16)
    config = tune.product_config(x, x.new_zeros(512, 64))
    assert config in tune.product_configs(x.device, x.dtype, 64)
    assert len(json.loads(cache.read_text())) == 1
