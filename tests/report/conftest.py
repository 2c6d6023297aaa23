"""Images, shards and evaluated runs, made once."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightsae.report import ReportOptions, build_report

from .chromium import Chromium
from .helpers import write_images, write_run, write_shards

torch.set_num_threads(1)
CLASSES = ["<script>alert(1)</script>", "tabby & cat", 'a "quoted" dog']
IMAGES, PATCHES = 240, 9


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two runs of one seed and one of another on the same shards, and one on patches."""
    folder = tmp_path_factory.mktemp("report")
    images = write_images(folder / "images.npz", IMAGES, CLASSES)
    shards = write_shards(folder / "shards", images, IMAGES, CLASSES)
    patches = write_shards(folder / "patches", images, IMAGES, CLASSES, patches=PATCHES)
    return SimpleNamespace(
        folder=folder,
        images=images,
        shards=shards,
        baseline=write_run(folder / "baseline", shards),
        reg=write_run(folder / "reg", shards, weight=0.1),
        other=write_run(folder / "other", shards, seed=7),
        patches=write_run(folder / "patch", patches),
    )


@pytest.fixture(scope="session")
def page(made: SimpleNamespace) -> Path:
    """A page of two runs."""
    runs = [made.reg, made.baseline]
    return build_report(ReportOptions(runs, made.folder / "page.html"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all tests."""
    found = Chromium(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def chromium(browser: Chromium) -> Iterator[Chromium]:
    """The browser without network, and without anything to complain about."""
    browser.problems.clear()
    browser.requests.clear()
    browser.offline()
    browser.resize(1280, 4000)  # so that all latents of a small run are in view
    yield browser
    assert browser.problems == []
    assert [each for each in browser.requests if not each.startswith("file:")] == []
