"""`lightsae report` on the command line."""

import shutil

import pytest

from lightsae.cli import main

from .helpers import write_run, write_shards


def test_it_writes_the_page(made, tmp_path, capsys):
    out = tmp_path / "deep" / "page.html"
    words = ["report", made.reg, made.baseline, "--out", out, "--baseline", "reg", "--top", 3]
    assert main([str(word) for word in words]) == 0
    assert "2 runs, compared with reg" in out.read_text()
    assert f"{out}: " in capsys.readouterr().err
    assert [file.name for file in out.parent.iterdir()] == ["page.html"]


def test_images_by_path(made, tmp_path):
    shards = write_shards(tmp_path / "shards", None, 240, ["a", "b", "c"])
    run = write_run(tmp_path / "run", shards)
    words = ["report", run, "--images", made.images, "--out", tmp_path / "page.html"]
    assert main([str(word) for word in words]) == 0
    assert 'id="sheet-0"' in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["{tmp}/nowhere"], 1, "nowhere: there is no such run folder"),
        (["{tmp}"], 1, "holds no evaluation.json"),
        (["{run}", "--out", "{tmp}"], 1, "is a folder, expected the name of an HTML file"),
        (["{run}", "--baseline", "x", "--out", "{tmp}/a.html"], 1, "x is none of the runs"),
        (["{run}", "--images", "{tmp}/x.npz", "--out", "{tmp}/a.html"], 1, "there is no file"),
        (["{run}", "--max_mb", "0", "--out", "{tmp}/a.html"], 2, "max_mb"),
        (["{run}", "--outt", "a"], 2, "--outt"),
        ([], 2, "runs"),
    ],
    ids=["missing", "not-evaluated", "folder", "baseline", "images", "megabytes", "option", "none"],
)
def test_what_is_wrong_is_told_in_one_line(made, tmp_path, capfd, words, status, message):
    given = [word.format(tmp=tmp_path, run=made.baseline) for word in words]
    assert main(["report", *given]) == status
    errors = [line for line in capfd.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert not list(tmp_path.glob("*.html"))


def test_an_altered_evaluation_is_refused(made, tmp_path, capfd):
    run = shutil.copytree(made.baseline, tmp_path / "run")
    path = run / "evaluation.json"
    path.write_text(path.read_text().replace('"test"', '"all"', 1))
    assert main(["report", str(run), "--out", str(tmp_path / "a.html")]) == 1
    assert "altered" in capfd.readouterr().err
