"""What a task or options get wrong is told in one line, before or as soon as it is seen."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightsae.errors import LightsaeError
from lightsae.interventions import LatentRanking
from lightsae.interventions.examples.planted_steering import PlantedTask
from lightsae.interventions.steering import (
    Examples,
    GuardLimit,
    Measured,
    SteeringOptions,
    SteeringResult,
    steer,
)
from lightsae.sae import BatchTopK, SparseAutoencoder, TopK, Transcoder

from .tasks import GRID

SMALL = SteeringOptions([1.0], [1], controls=[], bootstrap=100)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strengths": []}, "strengths is empty"),
        ({"strengths": [-1.0]}, r"strengths = \[-1.0\], expected finite, at least 0"),
        ({"strengths": [float("nan")]}, "expected finite"),
        ({"strengths": [1.0, 1.0]}, "expected each once"),
        ({"counts": []}, "counts is empty"),
        ({"counts": [0]}, r"counts = \[0\], expected whole, at least 1"),
        ({"counts": [1.5]}, r"counts = \[1.5\], expected whole, at least 1"),
        ({"kind": "more"}, "kind = 'more', expected one of"),
        ({"toward": 2}, "toward = 2"),
        ({"controls": ["none"]}, "controls: 'none', expected of"),
        ({"draws": 0}, "draws = 0, expected at least 1"),
        ({"bootstrap": 10}, "bootstrap = 10, expected at least 100"),
        ({"layers": []}, "layers is empty"),
    ],
)
def test_options(given: dict[str, Any], message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        SteeringOptions(**({"strengths": [1.0], "counts": [1]} | given))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (replace(SMALL, layers=["layr"]), "layers: 'layr' has no autoencoder, there are layer"),
        (replace(SMALL, counts=[25]), "counts: 25 is more than d_sae = 24 of layer 'layer'"),
        (
            SteeringOptions([1.0], [13], controls=["random"]),
            "of 24 latents of 'layer' 11 are left to draw 13 random ones from",
        ),
    ],
)
def test_options_that_do_not_fit_the_task(
    options: SteeringOptions, message: str, tmp_path: Path
) -> None:
    with pytest.raises(LightsaeError, match=message):
        steer(PlantedTask(), tmp_path, options)


@pytest.mark.parametrize("limits", [{}, {"rise": 0.0}, {"fall": float("nan")}, {"rise": -1.0}])
def test_limits(limits: dict[str, float]) -> None:
    with pytest.raises(LightsaeError, match="expected one of them or both, above 0"):
        GuardLimit(**limits)


class Labelled(PlantedTask):
    """Other labels."""

    def __init__(self, labels: Any) -> None:
        super().__init__()
        self.labels = np.asarray(labels)

    def examples(self) -> Examples:
        return Examples(super().examples().batches, self.labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0] * 200, "no sample has label 1"),
        ([1] * 200, "no sample has label 0"),
        ([0, 2] * 100, "labels must be one axis of 0 and 1"),
        ([0, 1], r"codes are \(200, 24\), expected \(2, 24\)"),
    ],
)
def test_labels(labels: list[int], message: str, tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=message):
        steer(Labelled(labels), tmp_path, SMALL)


class Measures(PlantedTask):
    """Another measurement, at first or once it is steered."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def measure(self, split: str) -> dict[str, Measured]:
        return self.change(super().measure(split))


def _nan(found: dict[str, Measured]) -> dict[str, Measured]:
    amounts = found["alarm"].amounts.clone()
    amounts[3] = torch.nan
    return found | {"alarm": Measured(amounts, found["alarm"].counts)}


def _only_steered(found: dict[str, Measured]) -> dict[str, Measured]:
    alarm = found["alarm"]
    steered = alarm.amounts.sum() == 0
    return found | {"alarm": Measured(*(each[: 150 if steered else 200] for each in alarm))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: {"alarm": found["alarm"]},
         r"measure gives no 'useful' \(baseline on choice\), there are alarm"),
        (lambda found: {"useful": found["useful"]}, "measure gives no 'alarm'"),
        (_nan, r"metric 'alarm' \(baseline on choice\): sample 3 has amount nan of 1.0"),
        (lambda found: found | {"alarm": Measured(torch.ones(3), torch.ones(2))},
         r"amounts are \[3\], counts \[2\]"),
        (lambda found: found | {"alarm": Measured(torch.ones(0), torch.ones(0))}, "n at least 1"),
        (lambda found: found | {"alarm": Measured(torch.ones(2), torch.zeros(2))},
         "all counts are 0"),
        (lambda found: found | {"alarm": Measured(torch.ones(2), -torch.ones(2))},
         "counts at least 0"),
        (lambda found: None,
         r"measure gives a NoneType \(baseline on choice\), expected metrics by name"),
        (lambda found: found | {"alarm": 0.5},
         r"metric 'alarm' \(baseline on choice\) is a float, expected a Measured"),
        (lambda found: found | {"alarm": Measured(torch.ones(5), torch.ones(5))},
         r"metric 'alarm' \(baseline on choice\) has 5 samples, expected at least 6"),
        (_only_steered, r"ranked latents, strength 1, 1 latents, on choice\) gives samples"),
    ],
    ids=["guard", "target", "nan", "sizes", "empty", "counts", "negative", "none", "float", "few",
         "other-samples"],
)  # fmt: skip
def test_measurements(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=message):
        steer(Measures(change), tmp_path, SMALL)


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        (([3], [1.0], [1.0]), "2 latents are to be steered, the ranking of 'layer' by ranked"),
        (([3, 3], [1.0, 1.0], [1.0, 1.0]), "expected distinct latents below d_sae = 24"),
        (([3, 24], [1.0, 1.0], [1.0, 1.0]), "expected distinct latents below d_sae = 24"),
        (([3, 4], [1.0, 0.0], [1.0, 1.0]), "expected signs of 1 or -1 and finite means"),
        (([3, 4], [1.0, 1.0], [1.0, np.nan]), "expected signs of 1 or -1 and finite means"),
    ],
)
def test_rankings(ranking: Any, message: str, tmp_path: Path) -> None:
    task = PlantedTask()
    task.ranking = lambda features, labels: LatentRanking(*map(torch.tensor, ranking))
    with pytest.raises(LightsaeError, match=message):
        steer(task, tmp_path, replace(SMALL, counts=[2]))


def test_samples_that_were_refused_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="gives samples"):
        steer(Measures(_only_steered), tmp_path, SMALL, about={"task": "same"})
    again = steer(PlantedTask(), tmp_path, SMALL, about={"task": "same"})
    assert again.outcome == "works"


def test_examples_that_are_none(tmp_path: Path) -> None:
    task = PlantedTask()
    task.examples = lambda: None
    with pytest.raises(LightsaeError, match="examples gives a NoneType, expected Examples"):
        steer(task, tmp_path, SMALL)


def test_a_layer_without_features(tmp_path: Path) -> None:
    task = PlantedTask()
    task.features = lambda batches: {}
    with pytest.raises(LightsaeError, match="features: none of layer 'layer'"):
        steer(task, tmp_path, SMALL)


def test_a_target_that_is_its_own_guard_and_a_task_without_autoencoders(tmp_path: Path) -> None:
    task = PlantedTask()
    task.guards = {"alarm": GuardLimit(rise=1.0)}
    with pytest.raises(LightsaeError, match="guards: 'alarm' is the target"):
        steer(task, tmp_path, SMALL)
    task.guards, task.saes = {}, {}
    with pytest.raises(LightsaeError, match="saes of the task are empty"):
        steer(task, tmp_path, SMALL)


def test_a_task_that_lacks_something(tmp_path: Path) -> None:
    task = PlantedTask()
    task.guards = {"useful": 0.1}
    with pytest.raises(LightsaeError, match=r"guards: 'useful' has 0\.1, expected a GuardLimit"):
        steer(task, tmp_path, SMALL)
    task.guards = ["useful"]
    with pytest.raises(LightsaeError, match=r"guards = \['useful'\], expected limits by name"):
        steer(task, tmp_path, SMALL)
    del task.guards
    with pytest.raises(LightsaeError, match="PlantedTask has no guards, expected it of a task"):
        steer(task, tmp_path, SMALL)
    with pytest.raises(LightsaeError, match="about: expected plain values: "):
        steer(PlantedTask(), tmp_path, SMALL, about={"model": torch.nn.Identity()})


def test_a_model_that_does_not_run_the_layer(tmp_path: Path) -> None:
    task = PlantedTask()
    measured = task.measure("choice")
    task.measure = lambda split: measured
    with pytest.raises(LightsaeError, match="layer 'layer' did not run"):
        steer(task, tmp_path, SMALL)


def test_a_transcoder_has_no_raw_direction(tmp_path: Path) -> None:
    task = PlantedTask()
    task.saes = {"layer": Transcoder(24, 24, selection=TopK(4))}
    with pytest.raises(LightsaeError, match="controls: 'raw' needs activations of the output"):
        steer(task, tmp_path, replace(SMALL, controls=["raw"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "expected format 1 of a steering"),
        ('{"format": 2}', "expected format 1 of a steering"),
        ('{"format": 1}', "is not whole"),
    ],
)
def test_a_file_that_is_no_steering(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "steering.json"
    path.write_text(text)
    with pytest.raises(LightsaeError, match=message):
        SteeringResult.load(path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    result = SteeringResult("wer", True, {})
    with pytest.raises(LightsaeError, match=r"steering.json cannot be written: "):
        (tmp_path / "file").touch()
        result.save(tmp_path / "file")


def test_altered_numbers_are_refused(tmp_path: Path) -> None:
    path = steer(PlantedTask(), tmp_path, GRID).save(tmp_path)
    path.write_text(path.read_text().replace('"damage": 0.0', '"damage": "much"', 1))
    with pytest.raises(LightsaeError, match="is not whole"):
        SteeringResult.load(path)


def test_a_model_in_training_mode_is_refused(tmp_path: Path) -> None:
    task = PlantedTask()
    task.model.layer.register_module("drop", nn.Dropout(0.1))
    with pytest.raises(LightsaeError, match=r"task.layer.drop, a Dropout, is in training mode"):
        steer(task, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_an_autoencoder_whose_codes_depend_on_its_mode_is_refused(tmp_path: Path) -> None:
    task = PlantedTask()
    task.saes = {"layer": SparseAutoencoder(24, 24, BatchTopK(4))}
    with pytest.raises(
        LightsaeError, match=r"autoencoder of layer 'layer' is in training mode.* BatchTopK takes"
    ):
        steer(task, tmp_path, SMALL)
    task.saes = {"layer": PlantedTask().saes["layer"].train()}
    assert steer(task, tmp_path, SMALL).outcome == "works"
