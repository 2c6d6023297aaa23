"""`lightsae name` over a run folder."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightsae.activations import ActivationDataModule, Manifest, ShardWriter
from lightsae.cli import main
from lightsae.dictionaries import LatentNames, Vocabulary
from lightsae.evaluation import EvaluationResult
from lightsae.sae import SparseAutoencoder, TopK

from ...report.helpers import SPLIT, write_run, write_shards

CLASSES = ["cat", "dog", "elm"]
Ask = Callable[..., str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("named")
    shards = write_shards(folder / "shards", None, 400, CLASSES)
    run = write_run(folder / "run", shards, d_sae=24, k=3)
    sae = SparseAutoencoder.load(run / "sae")
    rows = sae.W_dec.detach()[:6] * 3
    names = [f"word {row}" for row in range(5)] + ["[red]odd\x1b[0m"]
    Vocabulary(names, rows, {"model": "tiny"}).save(folder / "words.safetensors")
    return SimpleNamespace(
        folder=folder, run=run, sae=sae, words=folder / "words.safetensors", shards=shards
    )


@pytest.fixture
def error(capfd: pytest.CaptureFixture[str]) -> Ask:
    """The one line that a command ends with."""

    def ask(*words: object, status: int = 1) -> str:
        assert main(["name", *map(str, words)]) == status
        return capfd.readouterr().err.strip().splitlines()[-1]

    return ask


def test_a_vocabulary_of_decoder_rows_names_their_latents(
    made: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["name", str(made.run), "--vocabulary", str(made.words)]) == 0
    printed = capfd.readouterr().out
    found = LatentNames.load(made.run)
    firings = EvaluationResult.load(made.run).latents["firings"]
    assert torch.equal(found.alive, firings > 0)
    expected = [f"word {row}" for row in range(5)] + ["[red]odd\x1b[0m"]
    for latent in range(6):
        assert found.nearest[latent] == expected[latent]
        assert found.names[latent] == (expected[latent] if firings[latent] else None)
    assert found.about["model"] == "tiny" and len(found.about["autoencoder"]) == 16
    assert found.candidates.shape == (24, 5) and found.cutoff == 0.8
    assert "alignment rate" in printed and "\x1b" not in printed and "[red]odd\\x1b[0m" in printed


def test_without_an_evaluation_all_latents_count(made: SimpleNamespace, tmp_path: Path) -> None:
    made.sae.save(tmp_path / "sae")
    words = ["name", str(tmp_path), "--vocabulary", str(made.words), "--cutoff", "-0.9"]
    assert main([*words, "--candidates", "1", "--show", "0"]) == 0
    found = LatentNames.load(tmp_path)
    assert found.alive.all() and found.cutoff == -0.9 and found.candidates.shape == (24, 1)


def test_classes_name_the_latents_that_fire_on_them(made: SimpleNamespace) -> None:
    words = ["name", str(made.run), "--labels", "--cutoff", "0.3", "--min_firings", "5"]
    assert main(words) == 0
    found = LatentNames.load(made.run)
    assert found.words == CLASSES and found.measure == "purity"
    result = EvaluationResult.load(made.run)
    assert torch.equal(found.alive, result.latents["firings"] > 0)
    assert found.about["rows"] == result.about["rows"] and found.about["split"] == "test"
    purest = int(found.similarity.nan_to_num(-1).argmax())
    assert found.words[found.index[purest]] == CLASSES[int(result.latents["main_class"][purest])]
    assert any(found.names)


def test_what_is_wrong_is_told_in_one_line(
    made: SimpleNamespace, error: Ask, tmp_path: Path
) -> None:
    one = "give one of --vocabulary FILE, --labels and --attributes FILE"
    assert one in error(made.run, status=2)
    assert one in error(made.run, "--labels", "--vocabulary", made.words, status=2)
    assert one in error(made.run, "--labels", "--attributes", "a.csv", status=2)
    assert "sae.json" in error(tmp_path, "--vocabulary", made.words)
    assert "is a file, expected a folder" in error(made.words, "--vocabulary", made.words)
    assert "a.csv cannot be read" in error(made.run, "--attributes", tmp_path / "a.csv")
    assert "too many to be counted" in error(made.run, "--labels", "--min_firings", 10**9)
    assert "evaluation.json cannot be read" in error(tmp_path, "--labels")
    assert "cutoff is 2.0" in error(made.run, "--vocabulary", made.words, "--cutoff", "2")
    assert "floor is 2.0" in error(made.run, "--labels", "--cutoff", "2")
    Vocabulary(["a"], torch.ones(1, 3)).save(tmp_path / "narrow.safetensors")
    told = error(made.run, "--vocabulary", tmp_path / "narrow.safetensors")
    assert "narrow.safetensors has directions of width 3, the decoder rows of" in told


def test_shards_that_are_gone_or_without_labels_are_told(
    made: SimpleNamespace, error: Ask, tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "shards", None, 60, CLASSES)
    run = write_run(tmp_path / "run", shards, d_sae=24, k=3)
    result = EvaluationResult.load(run)
    rows = result.about["rows"]
    result.about["rows"] = 7
    result.save(run)
    told = error(run, "--labels")
    assert f"the test split has {rows} rows, 7 were evaluated" in told and "config.yaml" in told
    (shards / "manifest.json").unlink()
    assert "manifest" in error(run, "--labels")


def relabelled(
    folder: Path, labels: torch.Tensor, classes: list[str], patches: int = 1
) -> tuple[Path, ActivationDataModule]:
    """A run on 400 rows with these labels, `patches` of each sample."""
    rows = torch.randn(400, 8, generator=torch.Generator().manual_seed(2))
    manifest = Manifest(
        d_in=8, dtype="float32", has_labels=True, classes=classes,
        tokens="patch" if patches > 1 else "class", settings={"images": 400 // patches},
    )  # fmt: skip
    at = torch.arange(400)
    with ShardWriter(folder / "shards", manifest, rows_per_shard=300) as writer:
        writer.write(rows, at // patches, at % patches, labels)
    sae = SparseAutoencoder(8, 24, TopK(3))
    sae.save(folder / "run" / "sae")
    data = ActivationDataModule(folder / "shards", readers=0, **SPLIT)
    data.setup()
    about = {"d_sae": 24, "k": 3, "shards": {"path": str(folder / "shards")}}
    EvaluationResult(about).save(folder / "run")
    config = {"data": {"init_args": {"path": str(folder / "shards"), **SPLIT}}}
    (folder / "run" / "config.yaml").write_text(json.dumps(config))
    return folder / "run", data


def test_classes_of_one_name_carry_their_number(tmp_path: Path) -> None:
    run, data = relabelled(tmp_path, torch.arange(400) % 3, ["crane", "maillot", "crane"])
    data.teardown()
    assert main(["name", str(run), "--labels"]) == 0
    assert LatentNames.load(run).words == ["crane (0)", "maillot", "crane (2)"]


def test_class_numbers_may_have_gaps(tmp_path: Path) -> None:
    numbers = torch.tensor([3, 7, 10**15, -1, -5])
    run, data = relabelled(tmp_path, numbers[torch.arange(400) % 5], [])
    assert main(["name", str(run), "--labels", "--min_firings", "2", "--cutoff", "0.01"]) == 0
    found = LatentNames.load(run)
    assert found.words == ["3", "7", "1000000000000000"]
    batches = list(data.split_dataloader("test"))
    x, label = (torch.cat(each) for each in zip(*((b[0], b[3]) for b in batches), strict=True))
    fires = SparseAutoencoder.load(run / "sae").encode(x).to_dense() > 0
    of = numbers[:3].tolist()
    for latent in range(24):
        for word, score in found.candidates_of(latent):
            has, known = label == of[found.words.index(word)], label >= 0
            share = has[fires[:, latent] & known].double().mean()
            base = has[known].double().mean()
            assert score == pytest.approx(float((share - base) / (1 - base)), abs=1e-6)
    data.teardown()


def test_the_patches_of_one_image_name_nothing(tmp_path: Path) -> None:
    run, data = relabelled(tmp_path, torch.arange(400) // 200, ["a", "b"], patches=100)
    data.teardown()
    assert main(["name", str(run), "--labels", "--cutoff", "0.01"]) == 0
    assert LatentNames.load(run).nearest == [None] * 24


def test_rows_without_any_label_are_told(tmp_path: Path, error: Ask) -> None:
    run, data = relabelled(tmp_path, torch.full((400,), -1), ["a", "b"])
    data.teardown()
    assert "no row of the test split has a label" in error(run, "--labels")


def test_attributes_of_a_table_name_the_latents_that_fire_on_them(
    made: SimpleNamespace, tmp_path: Path, error: Ask, capfd: pytest.CaptureFixture[str]
) -> None:
    """The classes as attributes give the names of the classes; samples left out do not count."""
    table = tmp_path / "attributes.csv"
    lines = [
        f"{sample},{','.join(str(int(sample % 3 == c)) for c in range(3))}" for sample in range(400)
    ]
    head = "sample,cat,dog,elm"
    table.write_text("\n".join([head, *lines[::-1]]))
    options = ["--min_firings", "5", "--cutoff", "0.3", "--show", "0"]
    assert main(["name", str(made.run), "--labels", *options]) == 0
    classes = LatentNames.load(made.run)
    capfd.readouterr()
    assert main(["name", str(made.run), "--attributes", str(table), *options]) == 0
    told = capfd.readouterr().err
    assert "latent_names.json written, in place of the names that were there" in told
    found = LatentNames.load(made.run)
    assert found.words == CLASSES and found.about["labels"] == str(table)
    assert torch.equal(found.candidates, classes.candidates)
    torch.testing.assert_close(found.scores, classes.scores, equal_nan=True)
    table.write_text("\n".join([head, *lines[:200]]))
    assert main(["name", str(made.run), "--attributes", str(table), *options]) == 0
    assert 0 < LatentNames.load(made.run).about["rows"] < found.about["rows"]
    assert torch.equal(LatentNames.load(made.run).alive, found.alive)
    table.write_text(f"{head}\n1000,1,0,0\n")
    assert "attributes.csv: no row of the test split is of a sample" in error(
        made.run, "--attributes", table
    )
