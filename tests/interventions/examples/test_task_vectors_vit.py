"""The worked example on task vectors, in small."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interventions.examples.task_images import digits, images_of_tar
from lightsae.interventions.examples.task_vectors_vit import Sizes, run
from lightsae.interventions.task_vectors.result import TaskVectorResult

SMALL = Sizes(
    depth=3, dim=16, base_epochs=6, tuning_epochs=6, d_sae=32, k=4, sae_epochs=1, latents=2,
    n_layers=1, draws=2,
)  # fmt: skip


@pytest.mark.slow
def test_it_ends_in_a_result_and_figures(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    data = digits()
    result = run(data, tmp_path, SMALL)
    assert TaskVectorResult.load(tmp_path) == result
    assert list(result.readings) == ["blocks.0", "blocks.1", "blocks.2"]
    assert {path.name for path in tmp_path.glob("*.png")} == {"task.png", "elsewhere.png"}
    base, tuned = result.arms[:2]
    assert base.scores["task"][0].samples == int(data.on_task[data.test].sum())
    assert tuned.share("task") > base.share("task")
    assert run(data, tmp_path / "again", SMALL) == result


def test_the_base_sees_a_share_of_the_task_and_all_else() -> None:
    data = digits()
    places = data.base_training(0.1)
    assert len(places.unique()) == len(places) and int(places.max()) < data.find.start
    on_task, others = data.on_task[places], ~data.on_task[data.train]
    assert int((~on_task).sum()) == int(others.sum())
    assert 0 < int(on_task.sum()) < 0.15 * int(data.on_task[data.train].sum())
    assert not torch.equal(digits(seed=1).labels, data.labels)


def test_images_of_a_tar(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    with tarfile.open(tmp_path / "some.tar.gz", "w:gz") as archive:
        for label, name in enumerate(("cat", "dog")):
            for place in range(10):
                content = io.BytesIO()
                pixels = np.full((4, 4, 3), 255 * label, np.uint8)
                image.fromarray(pixels).save(content, format="PNG")
                member = tarfile.TarInfo(f"images/{name}/{place}.png")
                member.size = content.tell()
                archive.addfile(member, io.BytesIO(content.getvalue()))
    data = images_of_tar(str(tmp_path / "some.tar.gz"), task=(1,))
    assert data.images.shape == (20, 3, 4, 4)
    assert torch.equal(data.images[:, 0, 0, 0], 2.0 * data.labels - 1)
    assert torch.equal(data.on_task, data.labels == 1)
    with pytest.raises(LightsaeError, match="in 6 folders or more"):
        images_of_tar(str(tmp_path / "some.tar.gz"), task=(5,))
    (tmp_path / "no.tar").write_bytes(b"no tar")
    with pytest.raises(LightsaeError, match=r"--data .*no.tar is no tar of images"):
        images_of_tar(str(tmp_path / "no.tar"))
