import re
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from lightsae.errors import LightsaeError
from lightsae.interventions.examples.dated_world.__main__ import main
from lightsae.interventions.examples.dated_world.experiment import Experiment
from lightsae.interventions.examples.dated_world.training import Training
from lightsae.interventions.steering import SteeringOptions
from lightsae.interventions.steering.result import SteeringResult

SMALL = Experiment(
    entities=12, years=6, training=Training(steps=300, batch_size=64, lr=5e-3, width=48, layers=2),
    block=0, sentences=600, d_sae=128, k=8, epochs=3,
    steering=SteeringOptions(strengths=[0.1, 2], counts=[1, 4], draws=1, bootstrap=200),
)  # fmt: skip


def test_the_example_at_a_reduced_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--out", str(tmp_path)], SMALL)
    printed = capsys.readouterr().out
    results = {
        name: SteeringResult.load(tmp_path / name / "steering.json")
        for name in ("amplify", "suppress")
    }
    baseline = results["amplify"].points_of("baseline", "test")[0].metrics
    assert 0.1 < baseline["leak rate"].value < 0.9
    for name, result in results.items():
        assert result.verdict in printed
        assert {"random latents 1", "shuffled labels 1", "raw direction"} < set(result.arms)
        assert (tmp_path / name / "report.html").stat().st_size > 0
    for row in ("baseline", "reconstruction only"):
        assert re.search(rf"{row} .*\d \(\d.* to .*\d\)", printed), row
    assert printed.count("raw direction") >= 2
    assert "In arXiv 2606.27199 amplifying works" in printed
    with pytest.raises(LightsaeError, match=r"experiment.json has another seed or size"):
        main(["--out", str(tmp_path), "--seed", "1"], SMALL)
