"""`lightsae plan`: the table, the JSON, and one line for what is wrong."""

from pathlib import Path

import pytest

from lightsae.cli import main
from lightsae.planning import Calibration, Plan

from ...planning.test_plan import RATES

CONFIGS = Path(__file__).parents[3] / "configs"
QUICK = CONFIGS / "quickstart.yaml"


def test_a_configuration_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.json"
    words = ["plan", "--config", str(CONFIGS / "planned" / "16m-latents.yaml"), "--gpu", "H200"]
    more = ["--nodes", "4", "--gpus_per_node", "8", "--tokens", "1000000000", "--d_in", "768"]
    assert main([*words, *more, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Estimates, none measured: 4 x 8 H200" in printed
    assert "1,000,000,000 rows take" in printed and "assumption" in printed
    plan = Plan.load(out)
    assert plan.shape.d_sae == 1 << 24 and plan.shape.state_dtype == "int8"
    assert plan.choice is not None and plan.choice.layout.latent > 1


def test_options_of_fit_change_what_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RATES.save(tmp_path / "rates.json")
    words = ["plan", "--config", str(QUICK), "--gpu", "cpu", "--d_in", "64"]
    rates = ["--calibration", str(tmp_path / "rates.json"), "--out", str(tmp_path / "plan.json")]
    assert main([*words, *rates, "--model.d_sae", "4096", "--data.path=nowhere"]) == 0
    plan = Plan.load(tmp_path / "plan.json")
    assert (plan.shape.d_sae, plan.shape.regularizer, plan.shape.k_aux) == (4096, "l1_l2_ratio", 64)
    assert "measured, " in capsys.readouterr().out


def test_what_does_not_fit_is_told_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--config", str(CONFIGS / "planned" / "16m-latents.yaml"), "--gpu", "A100"]
    assert main([*words, "--d_in", "768"]) == 0
    printed = capsys.readouterr().out
    assert "nothing fits into 80 GB; each of these would:" in printed
    assert "GPUs in place of 1" in printed


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "give --config FIT.yaml and --gpu NAME, or --calibrate"),
        (["--config", "a.yaml", "--gpu", "H300"], 1, "no GPU 'H300' is known; the closest are"),
        (["--config", str(QUICK), "--gpu", "H200", "--nodes", "0"], 2, "nodes"),
        (["--config", str(QUICK), "--gpu", "H200", "--data.path", "nowhere"], 1,
         "nothing tells the width of the activations"),
        (["--config", str(QUICK), "--gpu", "H200", "--data.path", "nowhere", "--d_in", "8",
          "--model.d_in", "9"], 1, "told differently by --d_in: 8, model.d_in: 9"),
        (["--config", str(CONFIGS / "extract-clip-vit-l.yaml"), "--gpu", "H200"], 2,
         "no configuration of lightsae fit: "),
        (["--calibrate", "--gpu", "H200"], 2, "--calibrate measures this machine"),
        (["--config", str(QUICK), "--gpu", "H200", "--data.path", "nowhere", "--d_in", "64",
          "--model.selection.k", "999"], 1, "k = 999 is larger than d_sae = 256"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(
    words: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *words]) == status
    told = capsys.readouterr().err.strip()
    assert message in told and told.startswith("lightsae plan: error: ") and "\n" not in told


def test_calibrate_writes_the_file_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found() -> Calibration:
        return RATES

    monkeypatch.setattr("lightsae.planning.calibrate", found)
    assert main(["plan", "--calibrate", "--out", str(tmp_path / "rates.json")]) == 0
    assert (tmp_path / "rates.json").is_file()
    assert "float32 product 50 GFLOP/s" in capsys.readouterr().err
