"""A steering that is stopped goes on to the same bits; another one is refused."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interventions.steering import GuardLimit, steer

from .tasks import GRID, Counted

ABOUT = {"class_path": "planted"}
MEASURED = 2 + 6 * 6  # baseline, reconstruction only, six arms of six cells


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    steer(Counted(), folder, GRID, about=ABOUT)
    return (folder / "steering.json").read_bytes()


@pytest.mark.parametrize("at", [1, 2, 3, 20, MEASURED, MEASURED + 2])
def test_after_an_interrupt_nothing_is_measured_twice(
    at: int, whole: bytes, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        steer(Counted(interrupted_at=at), tmp_path, GRID, about=ABOUT)
    again = Counted()
    steer(again, tmp_path, GRID, about=ABOUT)
    assert (tmp_path / "steering.json").read_bytes() == whole
    fresh = Counted()
    steer(fresh, tmp_path / "fresh", GRID, about=ABOUT)
    assert at - 1 + again.measured == fresh.measured
    assert again.looked == (at <= 2)


def test_the_order_of_metrics_is_the_same_after_a_stop(tmp_path: Path) -> None:
    def reversed_metrics(task: Counted) -> Counted:
        measure = task.measure
        task.measure = lambda split: dict(sorted(measure(split).items(), reverse=True))
        return task

    steer(reversed_metrics(Counted()), tmp_path, GRID, about=ABOUT)
    first = (tmp_path / "steering.json").read_bytes()
    steer(reversed_metrics(Counted()), tmp_path, GRID, about=ABOUT)
    assert (tmp_path / "steering.json").read_bytes() == first


def test_done_it_is_not_done_again(whole: bytes, tmp_path: Path) -> None:
    steer(Counted(), tmp_path, GRID, about=ABOUT)
    again = Counted()
    steer(again, tmp_path, GRID, about=ABOUT)
    assert (again.measured, again.looked) == (0, 0)
    assert (tmp_path / "steering.json").read_bytes() == whole


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_bits(whole: bytes, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from lightsae.interventions.steering import steer\n"
        "from tests.interventions.steering.tasks import GRID, Killed\n"
        f"steer(Killed(at=17), Path(sys.argv[1]), GRID, about={ABOUT})"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120)
    assert ended.returncode == -9
    assert not (tmp_path / "steering.json").exists()
    assert len(list((tmp_path / "cells").glob("*.safetensors"))) == 16
    steer(Counted(), tmp_path, GRID, about=ABOUT)
    assert (tmp_path / "steering.json").read_bytes() == whole


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    steer(Counted(), tmp_path, GRID, about=ABOUT)
    with pytest.raises(LightsaeError, match=r"options.kind was 'additive', is 'clamp'; choose an"):
        steer(Counted(), tmp_path, replace(GRID, kind="clamp"), about=ABOUT)
    with pytest.raises(LightsaeError, match=r"task.class_path was 'planted', is '.*Counted'"):
        steer(Counted(), tmp_path, GRID)
    still = Counted()
    still.guards, still.positions = {"useful": GuardLimit(fall=0.2)}, [0]
    with pytest.raises(
        LightsaeError, match=r"steered.guards.useful.fall was 0.1, is 0.2; steered.positions was N"
    ):
        steer(still, tmp_path, GRID, about=ABOUT)
    still = Counted()
    still.model.register_buffer("bias", torch.ones(1))
    with pytest.raises(LightsaeError, match=r"model was '\w+', is '\w+'"):
        steer(still, tmp_path, GRID, about=ABOUT)
    other = Counted()
    with torch.no_grad():
        other.saes["layer"].W_dec[0, 0] += 1e-3
    with pytest.raises(LightsaeError, match=r"saes.layer was '\w+', is '\w+'"):
        steer(other, tmp_path, GRID, about=ABOUT)


def test_a_cell_that_is_damaged_is_named(tmp_path: Path) -> None:
    steer(Counted(), tmp_path, GRID, about=ABOUT)
    cell = tmp_path / "cells" / "choice-ranked_latents-1.0-1.safetensors"
    cell.write_bytes(cell.read_bytes()[:40])
    with pytest.raises(LightsaeError, match=r"ranked_latents-1.0-1.safetensors cannot be read .*"):
        steer(Counted(), tmp_path, GRID, about=ABOUT)
    cell.unlink()
    steer(Counted(), tmp_path, GRID, about=ABOUT)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(LightsaeError, match="holds a run, expected another folder for a steering"):
        steer(Counted(), tmp_path, GRID)
    with pytest.raises(LightsaeError, match="is a file, expected a folder"):
        steer(Counted(), tmp_path / "metrics.jsonl", GRID)


def test_settings_that_are_no_json_are_named(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(LightsaeError, match=r"settings.json cannot be read"):
        steer(Counted(), tmp_path, GRID)


def test_an_attempt_that_found_no_latents_leaves_the_folder_free(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="11 are left to draw 13"):
        steer(Counted(), tmp_path, replace(GRID, counts=[13]), about=ABOUT)
    assert len(list((tmp_path / "cells").glob("*.safetensors"))) == 2
    again = Counted()
    steer(again, tmp_path, GRID, about=ABOUT)
    fresh = Counted()
    steer(fresh, tmp_path / "fresh", GRID, about=ABOUT)
    assert again.measured == fresh.measured
    with pytest.raises(LightsaeError, match=r"options.counts was \[1, 2\], is \[1, 3\]"):
        steer(Counted(), tmp_path, replace(GRID, counts=[1, 3]), about=ABOUT)
    # The latents alone are gone: what was measured by them stays.
    (tmp_path / "arms.safetensors").unlink()
    with pytest.raises(LightsaeError, match="holds a steering with other settings"):
        steer(Counted(), tmp_path, replace(GRID, counts=[1, 3]), about=ABOUT)


def test_settings_of_something_else_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"theme": "dark"}')
    with pytest.raises(LightsaeError, match=r"holds a steering with other settings: .*theme was"):
        steer(Counted(), tmp_path, GRID)
    assert (tmp_path / "settings.json").read_text() == '{"theme": "dark"}'


class Read(Counted):
    """Reads a file of which nothing else tells."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.content = content

    def hashes(self) -> dict[str, str]:
        return {"file": self.content}


def test_other_data_is_refused_and_named(tmp_path: Path) -> None:
    steer(Read("a"), tmp_path, GRID, about=ABOUT)
    with pytest.raises(LightsaeError, match=r"read.file was 'a', is 'b'"):
        steer(Read("b"), tmp_path, GRID, about=ABOUT)
