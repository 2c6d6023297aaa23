"""The experiment where its outcome is known, its file and its conclusion."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def test_a_file_without_flips_is_read(result: TaskVectorResult, tmp_path: Path) -> None:
    result.save(tmp_path)
    path = tmp_path / FILE
    found = json.loads(path.read_text())
    for arm in found["arms"]:
        del arm["flips"]
    path.write_text(json.dumps(found))
    older = TaskVectorResult.load(tmp_path)
    assert older.arm(CHOSEN).scores == result.arm(CHOSEN).scores
    assert older.arm(CHOSEN).paired_p_value("task") is None
    assert held(older) == held(result)
    assert all("McNemar" not in finding.figures for finding in conclude(older))


def test_an_unknown_arm_is_told(result: TaskVectorResult) -> None:
    with pytest.raises(LightsaeError, match="there is no arm 'tuned', expected one of: base, fine"):
        result.arm("tuned")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 9, "format is 9, expected 1"),
        ("arms", [{"name": "base"}], "is no result of a task vector experiment: KeyError"),
        ("arms", [], "is no result of a task vector experiment: .* no layers or no arms"),
        ("readings", {}, "is no result of a task vector experiment: .* no layers or no arms"),
        ("task", "maths", "is no result of .*: arm base has scores of other sets"),
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
        ({"scale": float("inf")}, "scale is inf, expected a finite factor"),
        ({"task": "maths"}, "measure gives task, elsewhere, expected 'maths' and another set"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        experiment(**options)  # type: ignore[arg-type]


ONE = Specificity(1.0, torch.tensor([1]), torch.tensor([1.0]))


def given(layers: list[str]) -> dict[str, Any]:
    return {"saes": {layer: identity_sae(D) for layer in layers}, "n_layers": 1,
            "specificity": dict.fromkeys(layers, ONE)}  # fmt: skip


def test_a_vector_without_energy_or_with_one_layer_is_refused_before_anything_is_measured() -> None:
    model = Residual()

    def never(_: nn.Module) -> Mapping[str, Tensor]:
        raise AssertionError("measured")

    same = TaskVector.between(model, Residual(), LAYERS)
    with pytest.raises(LightsaeError, match=r"^the task vector is 0: base and tuned have the same"):
        task_vector_experiment(model, same, measure=never, **given(LAYERS))
    alone = TaskVector.between(model, tuned(), ["blocks.2"])
    with pytest.raises(LightsaeError, match=r"^the task vector has only layer blocks\.2,"):
        task_vector_experiment(model, alone, measure=never, **given(["blocks.2"]))
    half = tuned()
    nn.init.zeros_(half.blocks[3].weight)  # type: ignore[arg-type]
    some = TaskVector.between(model, half, LAYERS)
    with pytest.raises(LightsaeError, match=r"^layer blocks\.3: no matrix of the layer changed"):
        task_vector_experiment(model, some, measure=never, **given(LAYERS))
    model.dropout = nn.Dropout(0.5)
    vector = TaskVector.between(model, tuned(), LAYERS)
    with pytest.raises(LightsaeError, match=r"^model\.dropout, a Dropout, is in training mode"):
        task_vector_experiment(model, vector, measure=never, **given(LAYERS))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (ONE._replace(latents=torch.tensor([D])), "has latent 8, expected a finite score and"),
        (ONE._replace(score=float("inf")), "has score inf, expected a finite score and latents of"),
    ],
)
def test_a_specificity_that_does_not_fit_is_refused(wrong: Specificity, message: str) -> None:
    model, arguments = Residual(), given(LAYERS)
    arguments["specificity"]["blocks.4"] = wrong
    vector = TaskVector.between(model, tuned(), LAYERS)
    with pytest.raises(LightsaeError, match=f"^specificity of layer blocks.4 {message}"):
        task_vector_experiment(model, vector, measure=measure, **arguments)


def test_measurements_of_other_samples_are_refused() -> None:
    model, sizes = Residual(), [5, 5, 4]

    def shrinking(_: nn.Module) -> Mapping[str, Tensor]:
        answers = torch.ones(sizes.pop(0), dtype=torch.bool)
        return {"task": answers, "elsewhere": answers}

    vector = TaskVector.between(model, tuned(), LAYERS)
    with pytest.raises(LightsaeError, match=r"measure gives \{'task': 4, 'elsewhere': 4\} samples"):
        task_vector_experiment(model, vector, measure=shrinking, **given(LAYERS))
    assert not any(parameter.any() for parameter in model.parameters())


def test_flips_are_counted_sample_by_sample() -> None:
    model = Residual()
    before = torch.tensor([True, True, False, False, False])
    after = torch.tensor([False, True, True, True, False])

    def changing(model: nn.Module) -> Mapping[str, Tensor]:
        changed = any(parameter.any() for parameter in model.parameters())
        return {"task": after if changed else before, "elsewhere": before}

    vector = TaskVector.between(model, tuned(), LAYERS)
    found = task_vector_experiment(model, vector, measure=changing, draws=2, curve=[],
                                   **given(LAYERS))  # fmt: skip
    assert found.arm("base").flips == {"task": ((0, 0),), "elsewhere": ((0, 0),)}
    assert found.arm(TUNED).flips == {"task": ((2, 1),), "elsewhere": ((0, 0),)}
    assert found.arm(TUNED).paired_p_value("task") == 1.0
    assert len(found.arm(RANDOM_LAYERS).flips["task"]) == 2
    assert found.arm(RANDOM_LAYERS).paired_p_value("task") is None
    figures = {finding.claim: finding.figures for finding in conclude(found)}
    assert figures["Fine-tuning helps on the task"].endswith("(McNemar's exact p = 1)")
    assert figures["Specificity chooses better than chance"].endswith(
        "of 2 draws, p = 1.000, which so few draws cannot bring to 5%"
    )


def test_other_layers_and_answers_are_refused() -> None:
    model = Residual()
    vector = TaskVector.between(model, tuned(), LAYERS)
    saes = {layer: identity_sae(D) for layer in LAYERS}
    specificity = dict.fromkeys(LAYERS, ONE)
    with pytest.raises(LightsaeError, match=r"saes and the task vector differ in layer blocks\.0"):
        task_vector_experiment(
            model, vector, {n: s for n, s in saes.items() if n != "blocks.0"}, specificity, measure,
            n_layers=1,
        )  # fmt: skip
    with pytest.raises(LightsaeError, match=r"measure: task is \[3\] torch.float32, expected bool"):
        task_vector_experiment(
            model, vector, saes, specificity, lambda _: {"task": torch.ones(3)}, n_layers=1
        )
