"""The demo's study: a grid on validation, the paper's rule, paired seeds on test, pictures."""

import json
import platform
from importlib import metadata
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightsae.activations import Manifest, ShardWriter
from lightsae.cli import main
from lightsae.demo import comparison, data, pictures, study
from lightsae.report import RunResult


def version(package: str) -> str:
    return platform.python_version() if package == "Python" else metadata.version(package)


def scored(variant: str, weight: float, seed: int, r2: float) -> study.Scores:
    result = RunResult(variant, weight, seed, r2, 0.5, 0.5, 9, 0, 0, 1.0)
    return study.Scores(study.Fit(variant, weight, seed), result, result)


@pytest.fixture
def small(tmp_path: Path) -> study.Setting:
    images, copies = 120, 2
    generator = torch.Generator().manual_seed(0)
    rows = torch.relu(torch.randn(images * copies, 24, generator=generator)) @ torch.randn(
        24, 8, generator=generator
    )
    with ShardWriter(tmp_path / "shards", Manifest(d_in=8, dtype="float16")) as writer:
        index = torch.arange(images * copies)
        writer.write(rows, sample_index=index // copies, token_index=index % copies)
    embeddings = torch.randn(images * copies, 5, generator=generator)
    save_file({"embeddings": embeddings}, tmp_path / "embeddings.safetensors")
    return study.Setting(
        tmp_path / "shards", tmp_path / "embeddings.safetensors", copies,
        d_sae=16, k=3, epochs=2, batch_size=32, dead_after=50,
    )  # fmt: skip


def test_the_largest_weight_that_keeps_r2_is_chosen_over_all_seeds() -> None:
    tried = [
        scored("baseline", 0.0, 0, 0.80),
        scored("baseline", 0.0, 1, 0.90),
        scored("Reg 1", 0.1, 0, 0.99),
        scored("Reg 1", 0.1, 1, 0.70),
        scored("Reg 1", 0.03, 0, 0.80),
        scored("Reg 1", 0.03, 1, 0.91),
        scored("Reg 1", 0.01, 0, 0.95),
        scored("Reg 1", 0.01, 1, 0.95),
    ]
    assert study.choose_weight("Reg 1", tried) == study.Choice("Reg 1", 0.03, keeps_r2=True)


def test_if_none_keeps_r2_the_smallest_weight_is_shown_and_said_so() -> None:
    tried = [scored("baseline", 0.0, 0, 0.9), scored("Reg 2", 0.1, 0, 0.1),
             scored("Reg 2", 0.01, 0, 0.5)]  # fmt: skip
    choice = study.choose_weight("Reg 2", tried)
    assert choice == study.Choice("Reg 2", 0.01, keeps_r2=False)
    assert "no λ of the grid kept" in study.explain_choice(choice)


def test_a_weight_at_the_edge_of_the_grid_is_said_to_be() -> None:
    edge = study.Choice("Reg 1", max(study.GRID), keeps_r2=True)
    assert "it is the largest of the grid" in study.explain_choice(edge)
    inside = study.Choice("Reg 1", min(study.GRID), keeps_r2=True)
    assert "of the grid" not in study.explain_choice(inside)


def test_the_grid_tries_every_weight_beside_the_baseline() -> None:
    fits = study.grid_fits([4, 5])
    assert len(fits) == len(set(fits)) == 2 * (1 + 2 * len(study.GRID))
    assert {fit.seed for fit in fits} == {4, 5}


def differing(variant: str, weight: float, differences: list[float]) -> list[study.Scores]:
    """Scores of some seeds, of which each differs so much from the baseline's .8."""
    return [scored(variant, weight, seed, 0.8 + by) for seed, by in enumerate(differences)]


BASE = differing("baseline", 0.0, [0.0] * 4)
BETTER, WORSE, UNCLEAR = [0.02, 0.03, 0.02, 0.03], [-0.02, -0.03, -0.02, -0.03], [0.02, -0.01] * 2


@pytest.mark.parametrize(
    ("differences", "unclear"),
    [
        ({0.01: BETTER, 0.03: UNCLEAR, 0.1: WORSE}, [0.03]),
        ({0.01: UNCLEAR, 0.03: BETTER, 0.1: WORSE}, []),
        ({0.01: UNCLEAR, 0.03: UNCLEAR, 0.1: UNCLEAR}, [0.01, 0.03, 0.1]),
        ({0.01: BETTER, 0.03: WORSE, 0.1: UNCLEAR}, [0.1]),
        ({0.01: [0.05]}, [0.01]),
    ],
    ids=["between", "below", "all", "above", "one-seed"],
)
def test_weights_that_the_choice_hangs_on_are_tried_with_more_seeds(
    differences: dict[float, list[float]], unclear: list[float]
) -> None:
    tried = BASE + [one for w, by in differences.items() for one in differing("Reg 1", w, by)]
    assert study.undecided("Reg 1", tried) == unclear


def test_more_seeds_pair_the_weights_in_question_with_the_baseline() -> None:
    fits = study.paired_fits([("Reg 1", 0.03), ("Reg 2", 0.1)], [7, 8])
    assert fits == [
        study.Fit("baseline", 0.0, 7), study.Fit("Reg 1", 0.03, 7), study.Fit("Reg 2", 0.1, 7),
        study.Fit("baseline", 0.0, 8), study.Fit("Reg 1", 0.03, 8), study.Fit("Reg 2", 0.1, 8),
    ]  # fmt: skip
    assert study.paired_fits([], [7, 8]) == []


def test_a_weight_is_judged_by_its_pairs_alone() -> None:
    base = [scored("baseline", 0.0, seed, r2) for seed, r2 in enumerate([0.80, 0.90, 0.99, 0.99])]
    tried = [*base, scored("Reg 1", 0.03, 0, 0.81), scored("Reg 1", 0.03, 1, 0.91)]
    assert study.choose_weight("Reg 1", tried) == study.Choice("Reg 1", 0.03, keeps_r2=True)


def test_the_differences_that_decided_are_told() -> None:
    tried = BASE + differing("Reg 1", 0.03, UNCLEAR) + differing("Reg 1", 0.1, [-0.5])
    assert study.explain_differences("Reg 1", tried) == (
        "Reg 1: validation R² less the baseline's, by λ: 0.03 +.0050 ± .0087 (4 seeds), "
        "0.1 -.5000 (1 seed)"
    )


def test_a_fit_is_repeatable_and_scored_on_separate_splits(
    small: study.Setting, tmp_path: Path
) -> None:
    fit = study.Fit("Reg 2", 0.01, seed=3)
    first, again = study.train(fit, small, tmp_path / "a"), study.train(fit, small, tmp_path / "b")
    assert first.test.r2 == again.test.r2
    assert first.test.mean_ms == again.test.mean_ms
    assert first.validation.r2 != first.test.r2
    saved = "reg2-0.01-seed3/sae.safetensors"
    assert (tmp_path / "a" / saved).read_bytes() == (tmp_path / "b" / saved).read_bytes()


@pytest.mark.slow
def test_the_demo_prints_a_table_and_draws_pictures(
    small: study.Setting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(comparison, "prepare", lambda out, console: small)
    monkeypatch.setattr(comparison, "GRID_SEEDS", (9,))
    monkeypatch.setattr(comparison, "MORE_SEEDS", (10,))
    monkeypatch.setattr(study, "GRID", (0.01,))
    monkeypatch.setattr(pictures, "load_images", lambda setting: torch.rand(240, 1, 8, 8))
    out = tmp_path / "run"
    assert main(["demo", "--run_dir", str(out), "--seeds", "2"]) == 0
    printed = capsys.readouterr().out
    assert "baseline" in printed and "Reg 1" in printed and "CNN" in printed
    results = json.loads((out / "results.json").read_text())
    assert len(results["grid_validation"]) == 2 * 3
    assert "2 seeds" in printed
    for package in ("Python", "torch", "lightning", "timm", "scikit-learn"):
        assert f"{package} {version(package)}" in printed
    assert len(results["seeds_test"]) == 6
    assert (out / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(out.glob("gallery-*.png"))) == 3


def test_images_and_embeddings_are_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    setting = study.Setting(Path(), Path(), copies=3)
    images = data.load_images(setting)
    digits = data.Digits(3, data.SEED)
    assert torch.equal(images[3 * 7], digits.images[7])
    assert torch.equal(images[3 * 7 + 2], digits.images[2 * 1797 + 7])


def test_seeds_must_be_positive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--run_dir", str(tmp_path), "--seeds", "0"]) == 1
    assert "seeds must be at least 1, got 0" in capsys.readouterr().err
