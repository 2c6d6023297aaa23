"""The two files of an evaluation: what is written is read back, anything else is refused."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.evaluation.result import JSON, TENSORS


def result(**changed) -> EvaluationResult:
    given = {
        "about": {"d_sae": 3, "run_dir": "runs/é", "embeddings": [{"name": "cnn", "d_e": 8}]},
        "scalars": {"r2": torch.tensor(0.5, dtype=torch.float64), "dead": 1, "ms_mean/cnn": None},
        "curves": {"k_robustness": {"k": [1, 2], "nmse": [0.5, math.nan]}},
        "latents": {
            "firings": torch.tensor([1, 0, 5]),
            "ms/cnn": torch.tensor([0.1, math.nan, 0.3], dtype=torch.float64),
            "top_samples": torch.tensor([[1, 2], [-1, -1], [3, -1]]),
        },
    }
    return EvaluationResult(**(given | changed))


def test_what_is_saved_is_loaded(tmp_path):
    written = result()
    written.save(tmp_path / "run")
    read = EvaluationResult.load(tmp_path / "run")
    assert read.about == written.about
    assert read.scalars == {"r2": 0.5, "dead": 1, "ms_mean/cnn": None}
    assert read.curves["k_robustness"]["k"] == [1, 2]
    assert math.isnan(read.curves["k_robustness"]["nmse"][1])
    assert read.latents.keys() == written.latents.keys()
    for name, tensor in written.latents.items():
        torch.testing.assert_close(read.latents[name], tensor, rtol=0, atol=0, equal_nan=True)
    assert (read.d_sae, read.embedding_names) == (3, ["cnn"])


def test_the_same_result_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        result().save(tmp_path / name)
    for file in (JSON, TENSORS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_json_has_null_in_place_of_nan(tmp_path):
    result(scalars={"r2": math.nan, "nmse": math.inf}).save(tmp_path)
    text = (tmp_path / JSON).read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["scalars"] == {"r2": None, "nmse": None}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"about": {}}, r"about\.d_sae is None, expected a positive integer"),
        ({"about": {"d_sae": True}}, r"about\.d_sae is True"),
        ({"about": {"d_sae": 3, "k": "8"}}, r"about\.k is '8', expected int or nothing"),
        ({"about": {"d_sae": 3, "embeddings": [{}]}}, r"about\.embeddings holds \{\}"),
        ({"scalars": {"r2": "high"}}, r"scalar 'r2' is 'high', expected a number"),
        ({"scalars": {"r2": True}}, r"scalar 'r2' is True"),
        ({"curves": {"c": {"k": [1, 2], "r2": [1]}}}, r"curve 'c' has columns of \[1, 2\] points"),
        ({"curves": {"c": {"k": ["x"]}}}, r"curve 'c' is not made of lists of numbers"),
        ({"curves": {"c": [1]}}, r"curve 'c' is not made of lists"),
        ({"latents": {"a": torch.zeros(2)}}, r"latents 'a' is \[2\] torch.float32, expected \[3\]"),
        ({"latents": {"a": torch.zeros(3).half()}}, r"torch.float16, expected \[3\]"),
        ({"latents": {"a": [1, 2, 3]}}, r"latents 'a' is \[1, 2, 3\]"),
    ],
)
def test_what_is_no_result_is_refused(changed, message):
    with pytest.raises(LightsaeError, match=message):
        result(**changed)


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    odd = result(about={"d_sae": 3, "shards": {"path": Path("x")}})
    with pytest.raises(LightsaeError, match=r"evaluation\.json cannot hold the result"):
        odd.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_of_two_evaluations_are_refused(tmp_path):
    result().save(tmp_path / "a")
    result(scalars={"r2": 0.1}).save(tmp_path / "b")
    (tmp_path / "b" / TENSORS).replace(tmp_path / "a" / TENSORS)
    with pytest.raises(LightsaeError, match=r"are not of one evaluation, or were altered"):
        EvaluationResult.load(tmp_path / "a")


def test_latents_may_share_memory(tmp_path):
    both = torch.arange(6.0)
    result(latents={"a": both[:3], "b": both[:3], "c": both[3:]}).save(tmp_path)
    assert EvaluationResult.load(tmp_path).latents["c"].tolist() == [3.0, 4.0, 5.0]


def test_a_number_beyond_float64_is_refused(tmp_path):
    result().save(tmp_path)
    text = (tmp_path / JSON).read_text()
    (tmp_path / JSON).write_text(text.replace('"r2": 0.5', '"r2": 1e400'))
    with pytest.raises(LightsaeError, match="holds a number that is none"):
        EvaluationResult.load(tmp_path)


def test_an_altered_number_is_found(tmp_path):
    result().save(tmp_path)
    path = tmp_path / JSON
    path.write_text(path.read_text().replace('"r2": 0.5', '"r2": 0.9'))
    with pytest.raises(LightsaeError, match=r"not of one evaluation, or were altered"):
        EvaluationResult.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"format": 1, "about": {"d_sae": NaN}}', "NaN is none of its numbers"),
        ('{"format": 2}', "is not an evaluation of format 1"),
        ("[]", "is not an evaluation of format 1"),
        ('{"format": 1, "about": []}', "key 'about' is missing or not of type dict"),
    ],
)
def test_other_json_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / JSON).write_text(content)
    with pytest.raises(LightsaeError, match=message) as caught:
        EvaluationResult.load(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    result().save(tmp_path)
    (tmp_path / TENSORS).unlink()
    with pytest.raises(LightsaeError, match=r"evaluation\.safetensors cannot be read"):
        EvaluationResult.load(tmp_path)


def test_tensors_of_another_program_are_refused(tmp_path):
    result().save(tmp_path)
    save_file({"firings": torch.zeros(3)}, tmp_path / TENSORS)
    with pytest.raises(LightsaeError, match="not of one evaluation"):
        EvaluationResult.load(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LightsaeError, match="file/run cannot be written"):
        result().save(tmp_path / "file" / "run")
