"""The progress bar of a run shows its figures whole."""

import io
from pathlib import Path

import pytest
import rich

from lightsae.runs import progress_bar
from lightsae.runs.progress_bar import RunProgressBar

from ..training.helpers import make_data, make_module, make_trainer, write_shards


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a terminal of 80 columns has been sent by a run with two validations."""
    folder = tmp_path_factory.mktemp("run")
    stream = io.StringIO()

    terminal = {"file": stream, "width": 80, "force_terminal": True, "color_system": None}
    fit = make_trainer(
        folder,
        callbacks=[RunProgressBar(console_kwargs=terminal)],
        enable_progress_bar=True,
        log_every_n_steps=2,
        max_epochs=2,
    )
    fit.fit(make_module(), make_data(write_shards(folder / "shards")))
    rich.reconfigure()
    return stream.getvalue()


@pytest.mark.parametrize("figure", ["R2 ", "val ", "loss .", "dead 0%", " rows/s"])
def test_figures_stand_beside_the_bar(shown: str, figure: str) -> None:
    assert figure in shown


def test_nothing_is_clipped_in_80_columns(shown: str) -> None:
    assert "…" not in shown


def test_epochs_count_from_one(shown: str) -> None:
    assert "Epoch 1/2" in shown and "Epoch 2/2" in shown and "Epoch 0" not in shown


def test_figures_of_what_was_not_logged_are_left_out() -> None:
    assert progress_bar.figures({}) == ""


def test_a_run_without_an_end_has_no_last_epoch(tmp_path: Path) -> None:
    bar = RunProgressBar()
    bar._trainer = make_trainer(tmp_path, max_epochs=-1)
    assert bar._get_train_description(4).strip() == "Epoch 5"
