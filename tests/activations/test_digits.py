from pathlib import Path

import pytest
import torch

from lightsae.activations import ActivationDataModule, Manifest
from lightsae.activations.sources import DigitsSource
from lightsae.activations.sources.digits import (
    Digits,
    Training,
    digits_embeddings,
    load_digits,
    train_digits_cnn,
    train_digits_vit,
)


def test_copies_follow_the_digits_and_keep_their_labels() -> None:
    digits = Digits(copies=3)
    assert digits.images.shape == (3 * 1797, 1, 16, 16)
    assert torch.equal(digits.labels[1797:3594], digits.labels[:1797])
    assert (digits.original_index[3594:] == range(1797)).all()
    assert digits[5][1] == int(load_digits()[1][5])
    assert abs(float(digits.images[:1797].mean())) < 0.01


def test_copies_are_altered_and_drawn_by_the_seed() -> None:
    first, again, other = Digits(2).images, Digits(2).images, Digits(2, seed=1).images
    assert torch.equal(first, again)
    assert torch.equal(first[:1797], other[:1797])
    assert not torch.equal(first[1797:], other[1797:])
    assert not torch.equal(first[1797:], first[:1797])


@pytest.mark.parametrize("train", [train_digits_vit, train_digits_cnn])
def test_an_encoder_is_trained_once(tmp_path: Path, train: object) -> None:
    assert callable(train)
    training = Training(steps=2, batch_size=4)
    module = train(tmp_path, training)
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    again = train(tmp_path, training)
    assert path.stat().st_mtime_ns == before
    images = Digits().images[:3]
    assert torch.equal(module(images), again(images))
    assert not module.training
    path.unlink()
    assert torch.equal(train(tmp_path, training)(images), module(images))


def test_embeddings_are_one_unit_row_per_digit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightsae.activations.sources.digits._train", lambda *_: None)
    embeddings = digits_embeddings(tmp_path)
    assert embeddings.shape == (1797, 64)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(1797))


@pytest.mark.slow
def test_the_source_makes_shards_and_the_data_module_splits_them_by_digit(tmp_path: Path) -> None:
    source = DigitsSource(copies=2, training_steps=2)
    data = ActivationDataModule(str(tmp_path / "shards"), source=source, batch_size=1024)
    data.prepare_data()
    manifest = Manifest.load(tmp_path / "shards")
    assert (manifest.rows, manifest.d_in, manifest.complete) == (3594, 64, True)
    trained = {int(i) for batch in data.train_dataloader() for i in batch.sample_index}
    tested = {int(i) for batch in data.test_dataloader() for i in batch.sample_index}
    data.teardown()
    assert not trained & tested
    assert len(tested) == 90
    assert [p.name for p in (tmp_path / "shards-encoders").iterdir()]
