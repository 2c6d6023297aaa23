"""The experiment where its outcome is known, its file and its conclusion."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.interventions.task_vectors.conclusion import conclude
from lightsae.interventions.task_vectors.experiment import (
    CHOSEN,
    LAST,
    PROJECTED,
    RANDOM_LAYERS,
    RANDOM_SPAN,
    TUNED,
    task_vector_experiment,
)
from lightsae.interventions.task_vectors.result import FILE, TaskVectorResult
from lightsae.interventions.task_vectors.specificity import Specificity
from lightsae.interventions.task_vectors.task_vector import TaskVector
from tests.interventions.hooks.models import identity_sae
from tests.interventions.task_vectors.planted_task import (
    ANSWER,
    DEPTH,
    HARMFUL_LAYER,
    LAYERS,
    SAMPLES,
    D,
    Residual,
    experiment,
    measure,
    tuned,
)


@pytest.fixture(scope="module")
def result() -> TaskVectorResult:
    return experiment()


def held(found: TaskVectorResult) -> list[bool]:
    return [finding.holds for finding in conclude(found)]


def test_arms_do_what_is_planted(result: TaskVectorResult) -> None:
    shares = {arm.name: (arm.share("task"), arm.share("elsewhere")) for arm in result.arms}
    assert shares["base"] == (0, 1)
    assert shares[TUNED] == (1, 0)
    assert shares[PROJECTED] == (0, 1)
    assert shares[CHOSEN] == (1, 1)
    assert shares[LAST] == (0, 1)
    assert shares[RANDOM_LAYERS] == (0, pytest.approx(18 / 19))  # one of all others does harm
    assert result.arm(RANDOM_LAYERS).draws == result.arm(RANDOM_SPAN).draws == 19
    assert result.arm(CHOSEN).layers == ("blocks.2",)
    assert result.arm(CHOSEN).energy == pytest.approx(1 / DEPTH)
    assert result.arm(PROJECTED).energy == 0
    assert result.arm(RANDOM_SPAN).energy == pytest.approx(2 / D, rel=0.1)
    assert result.arm(TUNED).scores["task"] == ((SAMPLES, SAMPLES),)


def test_readings_and_curves(result: TaskVectorResult) -> None:
    assert list(result.readings) == LAYERS
    reading = result.readings["blocks.2"]
    assert reading.specificity == 2 and reading.energy == pytest.approx(1 / DEPTH)
    assert (reading.kept.kept, reading.kept.rank, reading.kept.baseline) == (0, 2, 0.25)
    first, last, _, random = result.curves.values()
    assert [arm.share("task") for arm in first.values()] == [1, 1]
    assert [len(arm.layers) for arm in last.values()] == [1, 3]
    assert random[1].draws == 19 and random[3].draws == 19


def test_the_conclusion_follows_from_the_figures(result: TaskVectorResult) -> None:
    assert held(result) == [True, False, False, False, True, True, True, True]
    claims = {finding.claim: finding.figures for finding in conclude(result)}
    assert claims["Stethoscope, not scalpel"] == "5 of its 5 conditions hold"
    assert claims["Specificity chooses better than chance"] == (
        "100.0% against 0.0% on average of 19 draws, p = 0.050"
    )


def test_a_span_with_the_task_makes_the_scalpel_help() -> None:
    found = experiment(latents=(ANSWER, 5))
    assert found.arm(PROJECTED).share("task") == 1
    assert found.arm(PROJECTED).share("elsewhere") == 1
    assert held(found) == [True, True, True, True, True, True, True, False]


def test_a_layer_that_is_not_the_task_s_does_not_help() -> None:
    found = experiment(chosen=HARMFUL_LAYER)
    assert held(found)[4:] == [False, False, False, False]
    assert "-100.0 points" in conclude(found)[6].figures


def test_weights_are_what_they_were_and_each_set_of_layers_is_measured_once() -> None:
    model, calls = Residual(), []

    def counting(given: nn.Module) -> Mapping[str, Tensor]:
        calls.append([place for place, b in enumerate(given.blocks) if b.weight.any()])  # type: ignore[arg-type]
        return measure(given)

    vector = TaskVector.between(model, tuned(), LAYERS)
    scores = torch.tensor([1, 4])
    specificity = {
        layer: Specificity(1 / (1 + place), scores, scores.double())
        for place, layer in enumerate(LAYERS)
    }
    saes = {layer: identity_sae(D) for layer in LAYERS}
    task_vector_experiment(
        model, vector, saes, specificity, counting, n_layers=1, draws=2, curve=[1]
    )
    assert not any(parameter.any() for parameter in model.parameters())
    raw = [tuple(places) for places in calls if len(places) == 1]
    assert len(set(raw)) == len(raw) > 3


def test_it_comes_back_from_its_file(result: TaskVectorResult, tmp_path: Path) -> None:
    result.save(tmp_path / "new")
    assert TaskVectorResult.load(tmp_path / "new") == result
    assert experiment() == result


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 9, "format is 9, expected 1"),
        ("arms", [{"name": "base"}], "is no result of a task vector experiment: KeyError"),
        ("readings", 3, "is no result of a task vector experiment: AttributeError"),
        ("seed", None, "is no result of a task vector experiment: TypeError"),
    ],
)
def test_a_malformed_file_is_refused(
    key: str, value: object, message: str, result: TaskVectorResult, tmp_path: Path
) -> None:
    result.save(tmp_path)
    path = tmp_path / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(LightsaeError, match=message):
        TaskVectorResult.load(tmp_path)
    path.write_text("[" * 100_000)
    with pytest.raises(LightsaeError, match="is no result of a task vector experiment"):
        TaskVectorResult.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_layers": 20}, "n_layers is 20, expected 1 to 19"),
        ({"draws": 1}, "draws is 1, expected 2 or more"),
        ({"curve": [0, 3]}, r"curve: \[0, 3\], expected numbers from 1 to 20"),
        ({"task": "maths"}, "measure gives task, elsewhere, expected 'maths' and another set"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        experiment(**options)  # type: ignore[arg-type]


def test_other_layers_and_answers_are_refused() -> None:
    model = Residual()
    vector = TaskVector.between(model, tuned(), LAYERS)
    one = Specificity(1.0, torch.tensor([1]), torch.tensor([1.0]))
    saes = {layer: identity_sae(D) for layer in LAYERS}
    specificity = dict.fromkeys(LAYERS, one)
    with pytest.raises(LightsaeError, match=r"saes and the task vector differ in layer blocks\.0"):
        task_vector_experiment(
            model, vector, {n: s for n, s in saes.items() if n != "blocks.0"}, specificity, measure,
            n_layers=1,
        )  # fmt: skip
    with pytest.raises(LightsaeError, match=r"measure: task is \[3\] torch.float32, expected bool"):
        task_vector_experiment(
            model, vector, saes, specificity, lambda _: {"task": torch.ones(3)}, n_layers=1
        )
