"""The recipes for real models parse, and say what the paper does."""

from pathlib import Path

import pytest

from lightsae.interventions.steering import SteeringOptions
from lightsae.runs.steer_command import _parser

FOLDER = Path(__file__).parents[3] / "configs" / "steering"


@pytest.mark.parametrize(("name", "last"), [("small", 11), ("large-v3", 31)])
def test_recipe(name, last):
    words = ["--config", str(FOLDER / f"whisper-{name}.yaml"), "--out", "runs/w"]
    given = _parser(words).parse_args(words)
    assert given.task.class_path.endswith("WhisperHallucinations")
    task = given.task.init_args
    assert task.model == f"openai/whisper-{name}"
    assert list(task.saes) == [f"model.encoder.layers.{last}"]
    assert (task.wer_rise, task.find_by) == (0.03, "hallucination")
    options = SteeringOptions(
        **{field: given[field] for field in SteeringOptions.__dataclass_fields__}
    )
    assert (options.kind, options.toward, options.error_term) == ("additive", 0, False)
