"""Steerings whose answer is known: what is found, chosen and said."""

from pathlib import Path

import pytest
import torch

from lightsae.interventions.examples.planted_steering import CAUSE, USEFUL, PlantedTask
from lightsae.interventions.steering import (
    GuardLimit,
    Measured,
    SteeringOptions,
    SteeringResult,
    steer,
)
from lightsae.interventions.steering.result import BASELINE, RANKED, RECONSTRUCTION
from lightsae.interventions.steering.task import Split

from .tasks import GRID, AnyLatent, BrokenOnTest, Fragile

CONTROLS = ["random latents 1", "random latents 2", "random latents 3", "shuffled labels",
            "raw direction"]  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> SteeringResult:
    return steer(PlantedTask(), tmp_path_factory.mktemp("planted"), GRID)


def test_the_planted_latent_is_found_chosen_and_better_than_every_control(
    planted: SteeringResult,
) -> None:
    assert planted.latents["layer"][0] == CAUSE
    assert set(planted.latents["layer"][1:]) < set(USEFUL)
    assert planted.signs["layer"] == [1, 1]
    assert planted.chosen == (1.0, 1)
    assert planted.outcome == "works"
    assert [(each.control, each.beaten) for each in planted.comparisons] == [
        (name, True) for name in (RECONSTRUCTION, *CONTROLS) for _ in range(2)
    ]
    assert planted.verdict.startswith("Works: alarm 0.5 to 0 (-0.5, 95% -0.")
    assert "with 1 latent per layer at strength 1, guards within" in planted.verdict


def test_every_arm_has_the_whole_grid_and_the_rest_of_the_points_are_tested(
    planted: SteeringResult,
) -> None:
    assert planted.arms == [RANKED, *CONTROLS]
    for arm in planted.arms:
        assert [point.cell for point in planted.points_of(arm, "choice")] == GRID.cells
    for arm in (BASELINE, RECONSTRUCTION):
        assert [len(planted.points_of(arm, split)) for split in ("choice", "test")] == [1, 1]
    assert [point.cell for point in planted.points_of(RANKED, "test")] == [(1.0, 1)]


def test_the_numbers_of_a_cell_are_those_of_an_edit_by_hand(planted: SteeringResult) -> None:
    task = PlantedTask()
    x = task.data["choice"][0].clone()
    find = task.data["find"][0]
    for latent in planted.latents["layer"]:
        x[:, latent] -= 0.25 * find[find[:, latent] > 0, latent].mean()
    alarm, useful = task.model(x)
    point = planted.points_of(RANKED, "choice")[GRID.cells.index((0.25, 2))]
    assert point.metrics["alarm"].value == pytest.approx(float(alarm.mean()))
    assert point.metrics["useful"].value == pytest.approx(float(useful.mean()), abs=1e-6)
    fall = float(task.model(task.data["choice"][0])[1].mean() - useful.mean())
    assert point.damage == pytest.approx(fall / 0.1, rel=1e-4)


def test_the_raw_direction_moves_as_far_as_the_latents_of_its_cell(
    planted: SteeringResult,
) -> None:
    task = PlantedTask()
    find, labels = task.data["find"]
    apart = find[labels == 1].mean(dim=0) - find[labels == 0].mean(dim=0)
    step = 2.0 * find[find[:, CAUSE] > 0, CAUSE].mean()
    x = task.data["choice"][0] - step * apart / apart.norm()
    alarm, useful = task.model(x)
    point = planted.points_of("raw direction", "choice")[GRID.cells.index((2.0, 1))]
    assert point.metrics["alarm"].value == pytest.approx(float(alarm.mean()))
    assert point.metrics["useful"].value == pytest.approx(float(useful.mean()), abs=1e-5)


def test_intervals_hold_their_values_and_the_front_is_not_beaten(planted: SteeringResult) -> None:
    for point in planted.points:
        for each in point.metrics.values():
            assert each.low <= each.value <= each.high
            assert each.change_low <= each.change <= each.change_high
    front = [each for each in planted.points_of(RANKED, "choice") if each.on_front]
    assert {each.cell for each in front} == {(1.0, 1), (2.0, 1)}


@pytest.mark.parametrize("kind", ["multiplicative", "clamp"])
@pytest.mark.parametrize("error_term", [True, False])
def test_other_ways_of_steering_find_it_too(kind, error_term, tmp_path: Path) -> None:
    options = SteeringOptions([1.0], [1], kind=kind, error_term=error_term, controls=["raw"],
                              bootstrap=100)  # fmt: skip
    found = steer(PlantedTask(), tmp_path, options)
    assert (found.outcome, found.chosen) == ("works", (1.0, 1))
    assert found.arms == [RANKED, "raw direction"]


def test_steered_to_label_1_the_alarm_rings_everywhere(tmp_path: Path) -> None:
    class Rings(PlantedTask):
        target_falls = False

    options = SteeringOptions([0.25, 1.0], [1], toward=1, controls=["random"], bootstrap=100)
    found = steer(Rings(), tmp_path, options)
    assert (found.outcome, found.chosen) == ("works", (1.0, 1))
    assert found.verdict.startswith("Works: alarm 0.5 to 1 (+0.5, ")


def test_where_nothing_works_it_says_so(tmp_path: Path) -> None:
    found = steer(PlantedTask(works=False), tmp_path, GRID)
    assert found.outcome == "nothing"
    assert found.verdict.startswith("Nothing works: the chosen point, with 1 latent per layer")
    assert "does not improve the target: alarm 0.5 to 0.5 (+0, 95% +0 to +0)" in found.verdict
    assert not any(each.beaten for each in found.comparisons)


def test_where_controls_do_as_well_it_says_so(tmp_path: Path) -> None:
    found = steer(AnyLatent(), tmp_path, GRID)
    assert found.outcome == "controls"
    assert found.verdict.startswith("No better than its controls: alarm ")
    unbeaten = [each.control for each in found.comparisons if not each.beaten]
    assert unbeaten
    assert all(name in found.verdict for name in unbeaten)


def test_where_every_point_breaks_a_guard_none_is_chosen(tmp_path: Path) -> None:
    options = SteeringOptions([1.0, 2.0], [1, 2], bootstrap=100)
    found = steer(Fragile(), tmp_path, options)
    assert (found.outcome, found.chosen, found.comparisons) == ("no point", None, [])
    assert found.verdict == (
        "Nothing works: no point of the ranked latents keeps the guards within their limits (the "
        "least damage is 500.00 of what is allowed)."
    )
    assert {each.arm for each in found.points if each.split == "test"} == {BASELINE, RECONSTRUCTION}


def test_a_guard_that_breaks_on_test_is_told(tmp_path: Path) -> None:
    found = steer(BrokenOnTest(), tmp_path, GRID)
    assert found.outcome == "guards"
    assert found.verdict.startswith("Too much damage: alarm 0.5 to 0 ")
    assert "beyond the limit of useful 0.5 to 0 (-0.5, " in found.verdict


def test_counts_weigh_samples_and_other_metrics_are_kept(tmp_path: Path) -> None:
    class Words(PlantedTask):
        def measure(self, split: Split) -> dict[str, Measured]:
            alarm = super().measure(split)["alarm"].amounts
            words = 1 + torch.arange(len(alarm)) % 3
            return {"alarm": Measured(alarm * words, words.double()),
                    "useful": Measured(alarm, words), "told": Measured(alarm, words)}  # fmt: skip

    task = Words()
    task.guards = {"useful": GuardLimit(rise=1.0)}
    found = steer(task, tmp_path, SteeringOptions([1.0], [1], controls=[], bootstrap=100))
    alarm, words = task.data["test"][0][:, CAUSE] > 0.5, 1 + torch.arange(200) % 3
    (point,) = found.points_of(BASELINE, "test")
    assert point.metrics["alarm"].value == pytest.approx(float(words[alarm].sum() / words.sum()))
    assert set(point.metrics) == {"alarm", "useful", "told"}


def test_what_was_saved_is_what_was_found(planted: SteeringResult, tmp_path: Path) -> None:
    assert SteeringResult.load(planted.save(tmp_path)) == planted
