"""`lightsae import` and `lightsae export --format`."""

from pathlib import Path

import pytest
import torch

from lightsae.cli import main
from lightsae.interop import export_foreign, load_foreign
from lightsae.sae import SparseAutoencoder

from ..interop.helpers import relative, rows
from ..interop.ours import our_transcoder, ours
from .helpers import Ask, files


def test_a_folder_of_another_library_becomes_one_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = ours("BatchTopK")
    export_foreign(sae, tmp_path / "theirs", "saelens")
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    out = tmp_path / "ours"
    assert capsys.readouterr().err == (
        f"{out}: d_in 8, d_sae 32, BatchTopK k = 4, none, of saelens\n"
    )
    x = rows(8)
    assert relative(SparseAutoencoder.load(out)(x), sae(x)) < 1e-5


def test_of_a_transcoder_both_widths_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_foreign(our_transcoder("JumpReLU", d_out=6), tmp_path / "theirs", "gemma_scope")
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    assert capsys.readouterr().err.split(": ")[1] == (
        "transcoder, d_in 8, d_out 6, d_sae 32, JumpReLU k = 4, none, of gemma_scope\n"
    )


def test_what_differs_from_the_library_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_foreign(ours("TopK"), tmp_path / "theirs", "saev")
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    made, note = capsys.readouterr().err.splitlines()
    assert made.endswith("of saev")
    assert note.startswith("Where a row has fewer than k positive activations, saev's TopK keeps")
    assert SparseAutoencoder.load(tmp_path / "ours").provenance["notes"] == [note]


@pytest.mark.parametrize("place", ["folder", "checkpoint"])
def test_ours_is_written_as_another_library_reads_it(
    place: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "sae" if place == "folder" else run / "checkpoints" / "last.ckpt"
    out, x = tmp_path / "theirs", rows(6)
    assert main(["export", str(path), str(out), "--format", "saelens", "--fold"]) == 0
    assert capsys.readouterr().err == f"{out}: d_in 6, d_sae 24, TopK k = 3, as saelens reads it\n"
    found, expected = load_foreign(out), SparseAutoencoder.load(run / "sae")
    assert not found.apply_b_dec_to_input
    assert relative(found(x), expected(x)) < 1e-5


def test_there_and_back_by_commands(run: Path, tmp_path: Path) -> None:
    words = ["export", str(run / "sae"), "--out", str(tmp_path / "a"), "--format", "sparsify"]
    assert main(words) == 0
    words = ["import", str(tmp_path / "a"), str(tmp_path / "b"), "--format=sparsify"]
    assert main(words) == 0
    x = rows(6)
    there, back = SparseAutoencoder.load(run / "sae"), SparseAutoencoder.load(tmp_path / "b")
    assert relative(back(x), there(x)) < 1e-5
    assert torch.equal(back.b_enc, there.b_enc)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("import", "no_such", "{out}"), 1, "no_such: no such file or folder"),
        (("import", "{run}/sae", "{out}"), 1, "is of lightsae itself"),
        (("import", "{run}", "{run}"), 1, "choose an empty folder or a new one"),
        (("import", "{run}", "{out}", "--format", "x"), 1, "format is 'x', expected one of"),
        (("import", "{run}"), 2, "out"),
        (("export", "{run}/sae", "{out}"), 1, "no such checkpoint"),
        (("export", "{run}/sae", "{out}", "--format", "x"), 1, "format is 'x', expected one of"),
        (("export", "{run}/sae", "{out}", "--out", "{out}"), 2, "give the folder to make once"),
        (("export", "{run}/sae", "--format", "saelens"), 2, "give the folder to make once"),
        (("export", "{run}/sae", "{out}", "--fold"), 2, "--fold needs --format"),
        (("export", "{run}", "{out}", "--format", "saelens"), 1, "but in 'sae'"),
        (("export", "{run}/sae", "{run}", "--format", "saelens"), 1, "choose an empty folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    words: tuple[str, ...], status: int, says: str, run: Path, tmp_path: Path, line: Ask
) -> None:
    before = files(run)
    found, text = line(*(word.format(run=run, out=tmp_path / "out") for word in words))
    assert found == status
    assert says in text
    assert not (tmp_path / "out").exists() and files(run) == before
