"""Class effects on the page: the classes that change most, beside random latents."""

import json
import re
import shutil

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interventions import ClassEffects
from lightsae.interventions.class_effects.result import LogitChange
from lightsae.report import ReportOptions, build_report

CLASSES, LATENTS, SILENT = 7, [5, 3], 3


def effects(d_sae: int = 32) -> ClassEffects:
    """Of latent 5 class 2 falls most when it is ablated; latent 3 never fires."""
    means = torch.zeros(2, 2, CLASSES)
    means[:, 0] = torch.tensor([[0.1, -0.2, -1.5, 0.0, 0.3, 0.05, -0.4], [0, 0, 2.5, 0, 0, 0.5, 0]])
    means[:, 1] = float("nan")
    changes = [
        LogitChange(
            mean, torch.full_like(mean, 0.25), torch.full_like(mean, -0.01),
            torch.full_like(mean, 0.125), torch.full_like(mean, 0.0476),
        )
        for mean in means
    ]  # fmt: skip
    return ClassEffects(
        "blocks.3", d_sae, 240, 2.0, 0, torch.tensor(LATENTS), torch.tensor([17, 0]),
        torch.arange(20).repeat(2, 1), *changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("effects") / "run"
    shutil.copytree(made.baseline, folder)
    effects().save(folder)
    return folder


@pytest.fixture(scope="module")
def page_of_effects(run):
    return build_report(ReportOptions([run], run.parent / "page.html"))


def shown(chromium, page, latent):
    chromium.open(page, f"#latent-0-{latent}")
    chromium.wait_for("document.querySelector('dialog').open")
    return chromium.ask("document.querySelector('dialog').textContent")


def rows(chromium, edit):
    cells = "[...row.children].map(cell => cell.textContent)"
    body = f"document.querySelectorAll('[data-edit={edit}] tbody tr')"
    return chromium.ask(f"[...{body}].map(row => {cells})")


def test_the_classes_that_change_most_stand_beside_random_latents(chromium, page_of_effects):
    text = shown(chromium, page_of_effects, 5)
    assert "What this latent does" in text
    assert "over the 17 images where it fires in blocks.3" in text and "20 random latents" in text
    assert "Amplified 2 times" in text
    ablated, amplified = rows(chromium, "ablation"), rows(chromium, "amplification")
    assert [row[0] for row in ablated] == ['a "quoted" dog', "6", "4", "tabby & cat",
                                           "<script>alert(1)</script>"]  # fmt: skip
    assert ablated[0][1:] == ["\u22121.50 ± .250", "\u2212.010 ± .125", ".048"]
    assert amplified[0][:2] == ['a "quoted" dog', "+2.50 ± .250"]


def test_a_latent_that_fires_nowhere_and_one_that_was_not_measured(chromium, page_of_effects):
    text = shown(chromium, page_of_effects, SILENT)
    assert "It fires on none of the 240 images that the classifier was run on." in text
    assert rows(chromium, "ablation") == []
    assert "What this latent does" not in shown(chromium, page_of_effects, 4)


def test_runs_without_class_effects_have_none(chromium, page):
    found = re.search(r'id="contents">(.*?)</script>', page.read_text(), re.DOTALL)
    assert [each["effects"] for each in json.loads(found[1])["runs"]] == [None, None]
    assert "What this latent does" not in shown(chromium, page, 5)


def test_effects_of_another_dictionary_are_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    effects(d_sae=64).save(tmp_path / "run")
    with pytest.raises(LightsaeError, match=r"class_effects.safetensors: d_sae = 64, .* has 32$"):
        build_report(ReportOptions([tmp_path / "run"], tmp_path / "page.html"))
