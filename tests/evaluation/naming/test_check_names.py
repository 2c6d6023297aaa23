"""Names tested on a model whose latents are known to detect and to cause words."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lightsae.dictionaries import LatentNames
from lightsae.errors import LightsaeError
from lightsae.evaluation import NameChecks, check_names
from lightsae.interventions import ZeroAblate, attach
from lightsae.sae import SparseAutoencoder, TopK

WORDS, EXTRA, SAMPLES = 6, 26, 240
D = WORDS + EXTRA


def made(causal: bool = True) -> SimpleNamespace:
    """Inputs with one word and two other features each; word j is latent j, and logit j if causal.

    The other latents are features that no logit hangs on more than by chance.
    """
    generator = torch.Generator().manual_seed(0)
    words = torch.arange(SAMPLES) % WORDS
    x = torch.zeros(SAMPLES, D)
    x[torch.arange(SAMPLES), words] = 2 + torch.rand(SAMPLES, generator=generator)
    for _ in range(2):
        others = torch.randint(WORDS, D, (SAMPLES,), generator=generator)
        x[torch.arange(SAMPLES), others] = 1
    sae = SparseAutoencoder(D, D, TopK(3), normalization="none")
    head = nn.Linear(D, WORDS, bias=False)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(D)), sae.W_dec.copy_(torch.eye(D))
        sae.b_dec.zero_()
        head.weight.copy_(0.05 * torch.randn(WORDS, D, generator=generator))
        if causal:
            head.weight[:, :WORDS] += torch.eye(WORDS)
    model = nn.Sequential(nn.Identity(), head).eval()
    candidates = torch.arange(D).unsqueeze(1).clamp(max=WORDS - 1)
    scores = torch.where(torch.arange(D) < WORDS, 0.9, 0.1).unsqueeze(1)
    names = LatentNames(
        [f"word {i}" for i in range(WORDS)], candidates, scores,
        alive=torch.ones(D, dtype=torch.bool), cutoff=0.8,
    )  # fmt: skip
    return SimpleNamespace(model=model, sae=sae, x=x, words=words, names=names)


def checked(case: SimpleNamespace, **options: object) -> NameChecks:
    given = {"names": case.names, "carries": case.words} | options
    batches = case.x.split(100)
    return check_names(case.model, "0", case.sae, batches, **given)  # type: ignore[arg-type]


def test_names_that_are_right_are_detectors_and_controllers() -> None:
    found = checked(made())
    assert found.verdicts == ["detector and controller"] * WORDS
    assert found.verdict.startswith("the names hold: 6 of 6")
    for check in found.checks:
        assert check.name == f"word {check.latent}" and check.firings == SAMPLES // WORDS
        assert check.auroc == 1 and check.precision == 1
        assert check.base_rate == pytest.approx(1 / WORDS)


def test_names_of_the_wrong_words_are_neither() -> None:
    case = made()
    shifted = replace(case.names, candidates=(case.names.candidates + 1) % WORDS)
    found = checked(case, names=shifted)
    assert set(found.verdicts) == {"neither"} and "do not hold: 0 of 6" in found.verdict
    assert all(check.auroc < 0.5 and check.precision == 0 for check in found.checks)


def test_latents_that_no_logit_hangs_on_are_detectors_alone() -> None:
    found = checked(made(causal=False))
    assert set(found.verdicts) == {"detector"}
    assert found.verdict.startswith("the names tell what latents fire on, not what they do: 6 of 6")


def test_changes_and_p_values_are_their_definitions() -> None:
    case = made()
    found = checked(case, latents=[2, 4], n_random=5)
    p = []
    with torch.no_grad(), attach(case.model, {"0": case.sae}) as attached:
        before = case.model(case.x)
        for check in found.checks:
            fires = case.x[:, check.latent] > 0
            with attached.edit(ZeroAblate(check.latent)):
                after = case.model(case.x)
            moved = (after - before)[fires].double()
            change = (moved[:, check.latent] - moved.mean(dim=1)).mean().item()
            assert check.change == pytest.approx(change, abs=1e-5)
            t = (change - check.control_change) / (check.control_sd * np.sqrt(1 + 1 / 5))
            p.append(stats.t.cdf(t, df=4))
    q = stats.false_discovery_control(p)
    assert [check.controller_q for check in found.checks] == pytest.approx(q, rel=1e-3)


def test_a_sample_may_carry_several_words_or_none() -> None:
    case = made()
    has = torch.nn.functional.one_hot(case.words, WORDS).bool()
    has[:, 5] = False
    found = checked(case, carries=has)
    assert found.verdicts[:5] == ["detector and controller"] * 5
    assert math.isnan(found.checks[5].auroc) and found.verdicts[5] == "controller"


def test_a_latent_that_never_fires_is_untested() -> None:
    case = made()
    case.x[:, 3] = 0
    found = checked(case)
    assert found.verdicts[3] == "untested" and found.checks[3].firings == 0
    assert math.isnan(found.checks[3].change) and "5 of 5" in found.verdict


class Mean(nn.Module):
    """The mean over tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=1)


def test_only_the_positions_asked_for_count() -> None:
    case = made()
    other = torch.zeros_like(case.x)
    other[:, 0] = 5  # word 0 at the second token of every sample
    case.x = torch.stack([case.x, other], dim=1)
    case.model = nn.Sequential(case.model[0], Mean(), case.model[1]).eval()
    first, everywhere = checked(case, positions=[0]), checked(case)
    assert first.verdicts == ["detector and controller"] * WORDS
    assert first.checks[0].firings == SAMPLES // WORDS
    assert everywhere.checks[0].firings == SAMPLES and everywhere.checks[0].auroc == 0.5


def test_logits_of_words_may_be_taken_from_the_output() -> None:
    case = made()
    order = torch.tensor([5, 4, 3, 2, 1, 0])
    turned = replace(
        case.names, words=case.names.words[::-1], candidates=WORDS - 1 - case.names.candidates
    )
    found = checked(
        case, names=turned, carries=WORDS - 1 - case.words, logits=lambda out: out[:, order]
    )
    assert set(found.verdicts) == {"detector and controller"}


def test_a_file_gives_back_the_result(tmp_path: Path) -> None:
    case = made()
    case.x[:, 3] = 0
    found = checked(case, n_random=4)
    found.save(tmp_path)
    again = NameChecks.load(tmp_path)
    assert again.verdict == found.verdict and again.verdicts == found.verdicts
    assert repr(again.checks) == repr(found.checks)
    assert (again.samples, again.top, again.controls, again.alpha) == (SAMPLES, 20, 4, 0.05)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("format", 2, "no test of names of format 1"),
        ("checks", {}, "no test of names"),
        ("alpha", "0", "alpha is missing or no float"),
        ("checks", [{}], r"checks: 0\.latent is missing"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, key: str, value: object, told: str) -> None:
    NameChecks([], "0", 1, 1, 2, 0.05).save(tmp_path)
    path = tmp_path / "name_checks.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(LightsaeError, match=told):
        NameChecks.load(tmp_path)


def test_no_checks_are_no_verdict() -> None:
    assert NameChecks([], "0", 1, 1, 2, 0.05).verdict.startswith("no name can be tested")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"latents": [20]}, "latent 20 has no name"),
        ({"latents": []}, "expected one or more"),
        ({"carries": torch.zeros(3)}, r"carries is torch.float32 \[3\], expected integers \[240\]"),
        ({"n_random": 1}, "n_random 1"),
        ({"alpha": 1.0}, "alpha 1.0"),
        ({"logits": lambda out: out[:, :2]}, r"logits gives \[\d+, 2\], expected \[B, 6 words\]"),
    ],
)
def test_what_does_not_fit_is_told(options: dict[str, object], told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        checked(made(), **options)


def test_names_of_another_dictionary_are_refused() -> None:
    case = made()
    few = LatentNames(["a"], torch.zeros(3, 1, dtype=torch.long), torch.ones(3, 1),
                      alive=torch.ones(3, dtype=torch.bool), cutoff=0.5)  # fmt: skip
    with pytest.raises(LightsaeError, match="names are of 3 latents, the autoencoder has 32"):
        checked(case, names=few)
    stamped = replace(case.names, about={"autoencoder": "0" * 16})
    with pytest.raises(
        LightsaeError, match="names are of another autoencoder: run `lightsae name`"
    ):
        checked(case, names=stamped)
