import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from lightsae.errors import LightsaeError
from lightsae.interventions import attach
from lightsae.interventions.look_ahead.both_directions import steer_both
from lightsae.interventions.look_ahead.language_model import LanguageModel
from lightsae.interventions.look_ahead.questions import (
    DatedQuestion,
    Questions,
    UndatedQuestion,
    write_questions,
)
from lightsae.interventions.look_ahead.task import LookAheadTask
from lightsae.interventions.steering import SteeringOptions

from ..hooks.models import random_sae
from .language_models import WORDS, saved_model

LAYER = "model.layers.1"
OPTIONS = SteeringOptions(strengths=[1.0, 4.0], counts=[1, 2], draws=1, bootstrap=100)


def asked(model: LanguageModel, first: int) -> Questions:
    """Questions of which the model answers every other one by a later fact, the rest as of then."""
    prompts = [f"w{first} {word} w{place % 3}" for place, word in enumerate(WORDS[:24])]
    given = model.answers(prompts, 1)
    dated = []
    for place, (prompt, said) in enumerate(zip(prompts, given, strict=True)):
        fact = "nothing" if place % 2 else said
        dated.append(DatedQuestion(prompt, fact, ("never",) if fact == said else (said,), 7))
    unchanged = DatedQuestion("w30 w31", model.answers(["w30 w31"], 1)[0], (), 9)
    undated = [UndatedQuestion("w32 w33", "nothing")]
    return Questions([*dated, unchanged], undated, ["w1 w2 w3", "w4 w5"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    model = LanguageModel.load(saved_model(folder / "model"))
    torch.manual_seed(1)
    random_sae(16, 32, 6).save(folder / "sae")
    splits = {split: asked(model, place) for place, split in enumerate(("find", "choice", "test"))}
    write_questions(folder / "questions.jsonl", splits)
    return folder


def task_of(folder: Path, questions: Path | None = None, **options: object) -> LookAheadTask:
    file = questions or folder / "questions.jsonl"
    return LookAheadTask(str(folder / "model"), {LAYER: str(folder / "sae")}, str(file), **options)


def test_every_metric_of_the_bare_model(folder: Path) -> None:
    found = {name: each.value for name, each in task_of(folder).measure("test").items()}
    assert found["leak rate"] == found["as of then"] == 0.5
    assert (found["unchanged since"], found["undated"]) == (1.0, 0.0)
    assert found["loss"] > 0


def test_guards_are_those_that_have_questions(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "questions.jsonl").read_text().splitlines()
    some = [line for line in lines if json.loads(line)["kind"] != "text"]
    (tmp_path / "q.jsonl").write_text("\n".join(some))
    task = task_of(folder, tmp_path / "q.jsonl", accuracy_fall=0.1)
    assert set(task.guards) == {"as of then", "unchanged since", "undated"}
    assert task.guards["undated"].fall == 0.1
    assert set(task.measure("choice")) == {"leak rate", *task.guards}


def test_features_are_those_of_the_last_token(folder: Path) -> None:
    task = task_of(folder)
    prompts = ["w1 w2 w3", "w4", "w5 w6"]
    found = task.features(task.language_model.batches(prompts))[LAYER]
    for place, prompt in enumerate(prompts):
        given = task.language_model.tokenizer(prompt, return_tensors="pt")
        with attach(task.model, task.saes) as attached, attached.record() as recording:
            task.model(**given)
        wanted = recording[LAYER].to_dense()[0, -1].detach()
        torch.testing.assert_close(torch.from_numpy(found.codes[[place]].toarray())[0], wanted)


def test_examples_are_pairs_and_directions_take_latents_of_either_sign(folder: Path) -> None:
    amplify = task_of(folder)
    suppress = amplify.toward("suppress")
    batches, labels = amplify.examples()
    assert labels.tolist() == [0, 1] * 12
    features = amplify.features(batches)[LAYER]
    one, other = (task.ranking(features, labels) for task in (amplify, suppress))
    dense = features.codes.toarray()
    apart = dense[labels == 1].mean(axis=0) - dense[labels == 0].mean(axis=0)
    assert (apart[one.latents.numpy()] < 0).all() and len(one.latents)
    assert (apart[other.latents.numpy()] > 0).all() and len(other.latents)
    assert (amplify.direction, suppress.direction) == ("amplify", "suppress")


def test_both_directions_and_other_questions_in_a_folder_that_is_done(
    folder: Path, tmp_path: Path
) -> None:
    results = steer_both(task_of(folder), tmp_path / "out", OPTIONS)
    assert {result.points[0].metrics["leak rate"].value for result in results.values()} == {0.5}
    assert not set(results["amplify"].latents[LAYER]) & set(results["suppress"].latents[LAYER])
    again = steer_both(task_of(folder), tmp_path / "out", OPTIONS)
    assert again == results
    text = (folder / "questions.jsonl").read_text().replace("w1 w2 w3", "w1 w2 w4")
    (folder / "others.jsonl").write_text(text)
    with pytest.raises(LightsaeError, match="questions"):
        steer_both(task_of(folder, folder / "others.jsonl"), tmp_path / "out", OPTIONS)


def test_a_direction_that_there_is_not(folder: Path) -> None:
    with pytest.raises(LightsaeError, match="direction is 'up', expected one of amplify, suppress"):
        task_of(folder, direction="up")
    with pytest.raises(LightsaeError, match="direction is 'down'"):
        task_of(folder).toward("down")


def test_splits_that_lack_questions(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "questions.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]

    def kept(wanted: object) -> Path:
        some = [json.dumps(each) for each in records if wanted(each)]
        (tmp_path / "q.jsonl").write_text("\n".join(some))
        return tmp_path / "q.jsonl"

    file = kept(lambda each: each["split"] != "choice")
    with pytest.raises(LightsaeError, match=r"q.jsonl: split 'choice' has no dated question with"):
        task_of(folder, file)
    file = kept(lambda each: each["split"] != "test" or each["kind"] != "text")
    with pytest.raises(LightsaeError, match=r"split 'choice' has samples of 'loss', 'test' has"):
        task_of(folder, file)
