"""`lightsae pool`: an ordinary run folder that starts with the latents of others."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lightsae.cli import main
from lightsae.dictionaries import pool
from lightsae.runs.side_by_side.pool_runs import settings_of
from lightsae.runs.side_by_side.shared_rows import SharedRows
from lightsae.runs.side_by_side.trained_runs import read_autoencoder, read_trained
from lightsae.sae import SparseAutoencoder
from lightsae.training import read_checkpoint

from ...training.helpers import D_SAE, metrics


def pooled(out: Path, *words: object) -> int:
    return main(["pool", *map(str, words), "--out", str(out)])


@pytest.fixture(scope="module")
def done(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pooled") / "run"
    assert pooled(out, sweep, "--d_sae", D_SAE, "--epochs", 3) == 0
    return out


def test_it_starts_with_the_pooled_autoencoder_and_trains_it_on(
    done: Path, members: list[Path]
) -> None:
    saes = [read_autoencoder(folder) for folder in members]
    rows = SharedRows([read_trained(folder) for folder in members], "train")
    expected = pool(saes, rows, d_sae=D_SAE)
    start = SparseAutoencoder.load(done / "start")
    for name, tensor in expected.state_dict().items():
        assert torch.equal(start.state_dict()[name], tensor), name
    assert read_checkpoint(done / "checkpoints" / "last.ckpt")["global_step"] == 30
    trained = SparseAutoencoder.load(done / "sae")
    assert not torch.equal(trained.W_dec, start.W_dec)
    cosine = torch.cosine_similarity(trained.W_dec, start.W_dec)
    assert cosine.median() > 0.8


def test_it_says_where_every_latent_comes_from(done: Path, members: list[Path]) -> None:
    told = json.loads((done / "sae" / "sae.json").read_text())["provenance"]["pooled"]
    assert told["autoencoders"] == [str(folder) for folder in members]
    assert len(told["dictionary"]) == len(told["latent"]) == D_SAE


def test_the_run_is_an_ordinary_one(done: Path, members: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "moved"
    shutil.copytree(done, copy)
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    theirs = yaml.safe_load((members[0] / "config.yaml").read_text())
    assert settings["model"]["init_args"]["start_from"] == str(done / "start")
    assert settings["data"] == theirs["data"]
    assert settings["seed_everything"] == theirs["seed_everything"] == 0
    assert main(["test", "--run_dir", str(copy), "--evaluation.probes=false"]) == 0
    words = ["fit", "--config", str(copy / "config.yaml"), "--run_dir", str(copy)]
    assert main([*words, "--trainer.max_epochs", "4"]) == 0
    assert metrics(copy)[-1]["step"] == 39


def test_the_same_command_again_goes_on(
    done: Path, sweep: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = (sweep, "--d_sae", D_SAE)
    assert pooled(out, *words, "--epochs", 1) == 0
    capfd.readouterr()
    assert pooled(out, *words, "--epochs", 3) == 0
    text = capfd.readouterr().err
    assert "unique latents" not in text and "going on after step 10" in text
    ended = [SparseAutoencoder.load(folder / "sae") for folder in (out, done)]
    torch.testing.assert_close(ended[0].W_dec, ended[1].W_dec)


def test_it_goes_on_from_another_folder_and_after_it_was_moved(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (sweep, "--d_sae", D_SAE, "--epochs")
    assert pooled(tmp_path / "run", *words, 1) == 0
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir(sweep.parent)
    monkeypatch.setenv("HERE", str(tmp_path))
    assert pooled(Path("$HERE/moved"), Path(sweep.name), *words[1:], 2) == 0
    assert read_checkpoint(tmp_path / "moved/checkpoints/last.ckpt")["global_step"] == 20
    told = json.loads((tmp_path / "moved" / "sae" / "sae.json").read_text())["provenance"]
    assert told["made_by"]["runs"][0].startswith(str(sweep))


def test_a_checkpoint_that_the_first_run_was_given_is_not_gone_on_from() -> None:
    first = {"run_dir": "a", "ckpt_path": "a.ckpt", "trainer": {}, "model": {"init_args": {}}}
    assert settings_of(first, 9, Path("start"), None) == {
        "trainer": {}, "model": {"init_args": {"d_sae": 9, "start_from": "start"}}
    }  # fmt: skip


def test_all_unique_latents_are_kept_where_no_size_is_given(sweep: Path, tmp_path: Path) -> None:
    assert pooled(tmp_path / "run", sweep, "--epochs", 1, "--cosine", 2, "--iou", 2) == 0
    sae = SparseAutoencoder.load(tmp_path / "run" / "sae")
    assert D_SAE < sae.d_sae <= 3 * D_SAE


def test_another_pooling_into_the_folder_is_refused(
    done: Path, sweep: Path, members: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for words, told in (
        ((sweep, "--d_sae", 12), "was pooled with d_sae 24, now 12"),
        ((*members[:2], "--d_sae", D_SAE), "was pooled with runs "),
        ((sweep, "--d_sae", D_SAE, "--cosine", 0.9), "was pooled with cosine 0.7, now 0.9"),
    ):
        assert pooled(done, *words) == 1
        assert told in capfd.readouterr().err


def test_what_cannot_be_pooled_is_refused_in_one_line(
    sweep: Path, members: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(members[0], changed)
    settings = yaml.safe_load((changed / "config.yaml").read_text())
    settings["data"]["init_args"]["split_seed"] = 9
    (changed / "config.yaml").write_text(yaml.safe_dump(settings))
    for words, told in (
        ((members[0],), "is one run, expected at least two to pool"),
        ((members[0], members[0]), "is given twice"),
        ((members[0], tmp_path / "no"), "no: there is no such run folder"),
        ((members[1], changed), "divides its rows by"),
        ((sweep, "--d_sae", 999), "d_sae is 999, the 3 autoencoders have"),
    ):
        assert pooled(tmp_path / "out", *words) == 1
        text = capfd.readouterr().err
        assert told in text and text.count("\n") == 1
    assert pooled(tmp_path / "out", sweep, "--order", "age") == 2
    assert pooled(members[0], sweep) == 1
    assert "holds a run that was not pooled" in capfd.readouterr().err
