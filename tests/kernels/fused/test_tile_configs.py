"""Who multiplies: by the table, or timed once where asked for and remembered across processes."""

import json
from pathlib import Path

import pytest
import torch
from lightsae_kernels import encode_topk

tile_configs = pytest.importorskip("lightsae_kernels.fused.tile_configs")
from lightsae_kernels.fused.tile_configs import PRODUCT, ProductConfig  # noqa: E402

OPTIONS = (*PRODUCT[90], None)
GPU = torch.device("cuda")


class Clock:
    """Pretends that an option is the fastest, and counts how often it is asked."""

    def __init__(self, fastest: ProductConfig | None) -> None:
        self.fastest, self.asked = fastest, 0

    def __call__(self, config: ProductConfig | None) -> float:
        self.asked += 1
        return 1.0 if config == self.fastest else 2.0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTSAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tile_configs, "_remembered", {})
    return tmp_path / "cache" / "tuned.json"


def test_the_fastest_is_kept_and_timed_only_once(cache: Path) -> None:
    clock = Clock(OPTIONS[2])
    assert (
        tile_configs.tuned("shape", OPTIONS, clock)
        == tile_configs.tuned("shape", OPTIONS, clock)
        == OPTIONS[2]
    )
    assert clock.asked == len(OPTIONS)
    assert json.loads(cache.read_text()) == {"shape": list(OPTIONS[2])}


def test_the_next_process_does_not_time_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tile_configs.tuned("shape", OPTIONS, Clock(OPTIONS[1]))
    monkeypatch.setattr(tile_configs, "_remembered", {})
    clock = Clock(OPTIONS[0])
    assert tile_configs.tuned("shape", OPTIONS, clock) == OPTIONS[1]
    assert clock.asked == 0


@pytest.mark.parametrize("text", ["", "[1]", '{"shape": 3}', '{"shape": [1, 2, 3, 4, 5, 6]}'])
def test_a_file_that_makes_no_sense_is_replaced(cache: Path, text: str) -> None:
    cache.parent.mkdir()
    cache.write_text(text)
    assert tile_configs.tuned("shape", OPTIONS, Clock(OPTIONS[1])) == OPTIONS[1]
    assert json.loads(cache.read_text())["shape"] == list(OPTIONS[1])


def test_other_shapes_stay_in_the_file(cache: Path) -> None:
    tile_configs.tuned("one", OPTIONS, Clock(OPTIONS[1]))
    tile_configs.tuned("other", OPTIONS, Clock(OPTIONS[2]))
    assert set(json.loads(cache.read_text())) == {"one", "other"}


def test_a_folder_that_cannot_be_written_only_costs_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIGHTSAE_CACHE", str(tmp_path / "file"))
    assert tile_configs.tuned("shape", OPTIONS, Clock(OPTIONS[1])) == OPTIONS[1]


def test_that_the_library_is_the_fastest_is_remembered_too(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tile_configs.tuned("shape", OPTIONS, Clock(None)) is None
    monkeypatch.setattr(tile_configs, "_remembered", {})
    clock = Clock(OPTIONS[0])
    assert tile_configs.tuned("shape", OPTIONS, clock) is None
    assert clock.asked == 0
    assert json.loads(cache.read_text()) == {"shape": None}


@pytest.mark.parametrize(
    ("dtype", "d_in", "d_sae", "library"),
    [
        (torch.bfloat16, 1024, 65536, True),
        (torch.bfloat16, 1024, 8192, False),
        (torch.float16, 80, 8192, False),
        (torch.bfloat16, 77, 8192, True),
        (torch.float32, 1024, 8192, True),
    ],
)
def test_the_table_says_who_multiplies(
    dtype: torch.dtype, d_in: int, d_sae: int, library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    options = tile_configs.product_options(GPU, dtype, d_in, d_sae)
    assert (options[0] is None) == library
    assert options.count(None) == 1


def test_a_row_block_of_the_library_stays_in_l2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert tile_configs.library_rows(GPU, 65536 * 2) == 256
    assert tile_configs.library_rows(GPU, 1 << 40) == 16


def test_the_interpreter_times_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTSAE_AUTOTUNE", "1")
    clock = Clock(None)
    config = tile_configs.product_config(torch.zeros(4, 8), torch.zeros(16, 8), clock)
    assert (config, clock.asked) == (tile_configs.INTERPRETED_PRODUCT, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_times_its_table(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTSAE_AUTOTUNE", "1")
    tensors = [torch.randn(*s, device="cuda").bfloat16() for s in ((256, 64), (512, 64), (512,))]
    first, second = (
        encode_topk(*tensors, tensors[0].new_zeros(64), 8, backend="triton") for _ in range(2)
    )
    assert torch.equal(first.values, second.values)
    assert len(json.loads(cache.read_text())) == 1
