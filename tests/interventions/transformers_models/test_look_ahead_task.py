import json
import shutil
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
from lightsae.interventions.steering import SteeringOptions, steer

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


def test_a_question_in_two_splits_is_refused(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "questions.jsonl").read_text().splitlines()
    copied = json.dumps({**json.loads(lines[0]), "split": "test"})
    (tmp_path / "q.jsonl").write_text("\n".join([*lines, copied]))
    with pytest.raises(LightsaeError, match=r"prompt 'w0 w0 w0' is in splits 'find' and 'test'"):
        task_of(folder, tmp_path / "q.jsonl")


def test_questions_of_an_entity_are_one_sample(folder: Path, tmp_path: Path) -> None:
    lines = map(json.loads, (folder / "questions.jsonl").read_text().splitlines())
    about = [
        each | {"entity": f"e{place % 8}", "attribute": "a"} if each["kind"] == "dated" else each
        for place, each in enumerate(lines)
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, about)))
    found = task_of(folder, tmp_path / "q.jsonl").measure("test")
    assert found["leak rate"].counts.tolist() == [3.0] * 8
    assert found["leak rate"].value == 0.5


def copied_task(folder: Path, place: Path) -> LookAheadTask:
    shutil.copytree(folder / "model", place / "model", dirs_exist_ok=True)
    return LookAheadTask(
        str(place / "model"), {LAYER: str(folder / "sae")}, str(folder / "questions.jsonl")
    )


def test_another_model_tokenizer_or_file_under_the_same_name_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # As the command does it, which knows the options alone.
    about = {"init_args": {"model": "model"}}
    task = copied_task(folder, tmp_path)
    steer(task, out, OPTIONS, about=about)
    with torch.no_grad():
        task.model.lm_head.weight[0, 0] += 1
    task.model.save_pretrained(tmp_path / "model")
    again = LookAheadTask(
        str(tmp_path / "model"), {LAYER: str(folder / "sae")}, str(folder / "questions.jsonl")
    )
    with pytest.raises(LightsaeError, match=r"model was '\w+', is '\w+'"):
        steer(again, out, OPTIONS, about=about)
    for name, old, new in [
        ("tokenizer.json", '"w38": 41', '"x38": 41'),
        ("config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'),
    ]:
        task = copied_task(folder, tmp_path)
        file = tmp_path / "model" / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        again = LookAheadTask(
            str(tmp_path / "model"), {LAYER: str(folder / "sae")}, str(folder / "questions.jsonl")
        )
        with pytest.raises(LightsaeError, match=rf"read.{name[:6]}\w* was"):
            steer(again, out, OPTIONS, about=about)
    changed = (folder / "questions.jsonl").read_text().replace("w1 w2 w3", "w1 w2 w4")
    (tmp_path / "q.jsonl").write_text(changed)
    with pytest.raises(LightsaeError, match=r"read.questions was"):
        steer(task_of(folder, tmp_path / "q.jsonl"), out, OPTIONS, about=about)


def test_folders_of_autoencoders_may_have_variables(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAES", str(folder))
    task = LookAheadTask(
        str(folder / "model"), {LAYER: "$SAES/sae"}, str(folder / "questions.jsonl")
    )
    assert task.saes[LAYER].d_sae == 32
