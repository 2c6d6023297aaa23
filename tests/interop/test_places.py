"""Paths as people have them: a file for its folder, links, any letters, a disk that is full."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lightsae.cli import main
from lightsae.errors import LightsaeError
from lightsae.files import replacing
from lightsae.interop import conversion, export_foreign, load_foreign
from lightsae.sae import SparseAutoencoder, save_load

from .ours import ours


def test_a_file_in_the_place_of_its_folder_is_told_where_the_folder_is(tmp_path: Path) -> None:
    export_foreign(ours("TopK"), tmp_path / "sae", "saelens")
    file = tmp_path / "sae" / "sae_weights.safetensors"
    with pytest.raises(LightsaeError, match=f"but there is saelens in {tmp_path / 'sae'}$"):
        load_foreign(file)
    with pytest.raises(LightsaeError, match=r"is a file, expected the folder that has cfg.json"):
        load_foreign(file, "saelens")


def test_a_folder_of_several_is_told_which_there_are(tmp_path: Path) -> None:
    for layer in range(5):
        export_foreign(ours("TopK"), tmp_path / f"layers.{layer}", "sparsify")
    with pytest.raises(LightsaeError, match=r"sparsify in \S+/layers.0, .*, \S+ in \S+/layers.2$"):
        load_foreign(tmp_path)


def test_a_folder_of_ours_around_or_a_file_in_it_is_told(tmp_path: Path) -> None:
    ours("TopK").save(tmp_path / "sae")
    with pytest.raises(LightsaeError, match="has no autoencoder itself, but in 'sae'"):
        SparseAutoencoder.from_pretrained(tmp_path)
    with pytest.raises(LightsaeError, match=r"sae.json is a file, expected the folder"):
        SparseAutoencoder.from_pretrained(tmp_path / "sae" / "sae.json")


def test_names_of_any_letters_serve(tmp_path: Path) -> None:
    folder = tmp_path / "couche nº 3" / "層 #1"
    export_foreign(ours("TopK"), folder, "sparsify")
    assert main(["import", str(folder), str(tmp_path / "nôtre")]) == 0
    assert SparseAutoencoder.load(tmp_path / "nôtre").provenance["hook"] == "層 #1"


def test_home_and_variables_are_meant_in_python_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    export_foreign(ours("TopK"), "~/sae", "saelens")
    assert load_foreign("$HOME/sae").d_sae == 32


def test_a_link_to_a_folder_in_the_cache_of_the_hub_is_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1234"
    export_foreign(ours("TopK"), blobs, "saelens")
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    (tmp_path / "mine").symlink_to(snapshot)
    assert load_foreign(tmp_path / "mine").d_sae == 32


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    for attempt in (load_foreign, lambda path: export_foreign(ours("TopK"), path, "saelens")):
        with pytest.raises(LightsaeError, match="File name too long"):
            attempt(tmp_path / ("a" * 300))


@pytest.mark.parametrize("name", ["saelens", "llama_scope"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_disk_that_is_full_half_way_leaves_nothing(
    name: str, is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sae"
    if is_there:
        folder.mkdir()
    _fill_disk_after_one_file(monkeypatch, conversion)
    with pytest.raises(LightsaeError, match="sae cannot be written: No space left on device"):
        export_foreign(ours("TopK"), folder, name)
    assert folder.exists() == is_there
    assert not is_there or not list(folder.iterdir())


def test_an_import_that_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_foreign(ours("TopK"), tmp_path / "theirs", "saelens")
    _fill_disk_after_one_file(monkeypatch, save_load)
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 1
    assert not (tmp_path / "ours").exists()


def _fill_disk_after_one_file(monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    written: list[Path] = []

    @contextmanager
    def until_full(target: Path) -> Iterator[Path]:
        if written:
            raise OSError(28, "No space left on device")
        written.append(target)
        with replacing(target) as temporary:
            yield temporary

    monkeypatch.setattr(module, "replacing", until_full)
