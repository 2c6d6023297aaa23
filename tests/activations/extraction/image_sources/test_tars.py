import io
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

from lightsae.activations import DataOptions
from lightsae.activations.extraction.image_sources import Tars
from lightsae.activations.extraction.image_sources.file_listing import stamps
from lightsae.activations.extraction.images.image_set import load_images
from lightsae.errors import LightsaeError

OWN: dict[str, Any] = {"size": 16, "mean": [0.0] * 3, "std": [1.0] * 3}


def _picture(number: int) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(target, "png")
    return target.getvalue()


def _write(path: Path, members: dict[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def _samples(numbers: range) -> dict[str, bytes]:
    members = {}
    for n in numbers:
        members |= {f"train/{n:03d}.png": _picture(n), f"train/{n:03d}.cls": f"{n % 3}\n".encode()}
    return members


@pytest.fixture
def two(tmp_path: Path) -> str:
    _write(tmp_path / "t-0.tar", _samples(range(4)))
    _write(tmp_path / "t-1.tar", _samples(range(4, 9)))
    return f"{tmp_path}/t-{{0..1}}.tar"


def _red(image: Any) -> int:
    return int(np.asarray(image)[0, 0, 0])


def test_every_sample_can_be_read_in_any_order(two: str) -> None:
    pytest.importorskip("braceexpand")
    tars = Tars(two)
    assert len(tars) == 9
    order = np.random.default_rng(0).permutation(9).tolist()
    assert [_red(tars[i][0]) for i in order] == order
    assert [tars[i][1] for i in order] == [i % 3 for i in order]


def test_wildcards_name_the_tars_in_order(two: str) -> None:
    tars = Tars(two.replace("{0..1}", "*"))
    assert [_red(tars[i][0]) for i in range(9)] == list(range(9))


def test_images_of_tars_are_prepared(two: str) -> None:
    pattern = two.replace("{0..1}", "*")
    images, _ = load_images(DataOptions(webdataset=pattern, **OWN), nn.Identity())
    item = images.load(5)
    assert item.label == 2
    assert item.image is not None
    assert item.image.shape == (3, 16, 16)
    assert images.has_labels
    assert images.classes == []


def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for n in range(3):
            sample = {"png": _picture(n), "cls": n + 5, "json": {"n": n}}
            writer.write({"__key__": f"a.b/{n}", **sample})
    tars = Tars(str(tmp_path / "w.tar"))
    assert [(_red(image), label) for image, label in tars] == [(0, 5), (1, 6), (2, 7)]


def test_tars_without_labels(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", {"1.png": _picture(1), "2.png": _picture(2)})
    images, _ = load_images(DataOptions(webdataset=str(path), **OWN), nn.Identity())
    assert not images.has_labels
    assert images.load(1).label is None


@pytest.mark.parametrize("label", [b"cat", b""])
def test_labels_that_do_not_fit_are_left_out_where_that_is_asked_for(
    tmp_path: Path, label: bytes
) -> None:
    members = {"1.png": _picture(1), "1.cls": label, "2.png": _picture(2)}
    path = _write(tmp_path / "a.tar", members)
    options = DataOptions(webdataset=str(path), labels=False, **OWN)
    images, _ = load_images(options, nn.Identity())
    assert not images.has_labels
    assert images.load(1).image is not None
    assert images.load(1).label is None


def test_other_extensions_by_name(tmp_path: Path) -> None:
    members = {"1.seg.png": _picture(1), "1.png": _picture(2), "1.n.txt": b"7"}
    path = _write(tmp_path / "a.tar", members)
    image, label = Tars(str(path), image="seg.png", label="n.txt")[0]
    assert (_red(image), label) == (1, 7)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image": "pgn"}, "data.image_key: TAR has no member .pgn; closest: 'png' (it has cls, p"),
        ({"label": "clss"}, "data.label_key: TAR has no member .clss; closest: 'cls'"),
    ],
)
def test_an_extension_that_is_not_there_is_told(tmp_path: Path, options: Any, says: str) -> None:
    path = _write(tmp_path / "a.tar", _samples(range(2)))
    with pytest.raises(LightsaeError, match=f"^{re.escape(says.replace('TAR', str(path)))}"):
        Tars(str(path), **options)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"notes.txt": b"no"}, "data.image_key: TAR has no images (it has txt)"),
        ({"1.png": b"", "1.cls": b"cat"}, "TAR: 1.cls is 'cat', expected an integer"),
        (
            {"1.png": b"", "1.cls": b"4", "2.png": b""},
            "TAR: 2 has no .cls, expected a label for every image or for none: add it next to its "
            "image, or name labels that all have with data.label_key, or take none with "
            "data.labels false",
        ),
        (
            {"1.png": b"", "2.png": b"", "1.cls": b"4", "2.cls": b"5"},
            "data.label_key: TAR has no member .cls next to its image; expected the members of a "
            "sample one after another",
        ),
        (
            {"x/1.jpg": b"", "x/1.png": b""},
            "TAR: x/1 has .jpg and .png, expected one image for each name up to its first dot; "
            "data.image_key says which extension is meant",
        ),
        (
            {"IMG_1.2.jpg": b"", "IMG_1.3.jpg": b""},
            "TAR: IMG_1 has .2.jpg and .3.jpg, expected one image for each name up to its first "
            "dot; data.image_key says which extension is meant",
        ),
        (
            {"1.png": b"", "1.a.cls": b"1", "1.b.cls": b"2"},
            "TAR: 1 has .a.cls and .b.cls, expected one label for each name up to its first dot; "
            "data.label_key says which extension is meant",
        ),
    ],
)
def test_members_that_do_not_fit_are_told(
    tmp_path: Path, members: dict[str, bytes], says: str
) -> None:
    path = _write(tmp_path / "a.tar", members)
    with pytest.raises(LightsaeError, match=f"^{re.escape(says.replace('TAR', str(path)))}$"):
        Tars(str(path))


def test_a_name_with_several_dots_has_its_image_and_label_by_the_last(tmp_path: Path) -> None:
    names = ("a", "photo.v2", "IMG_1.2", "b")
    members = {}
    for n, name in enumerate(names):
        members |= {f"{name}.jpg": _picture(n), f"{name}.cls": b"%d" % n}
    tars = Tars(str(_write(tmp_path / "a.tar", members)))
    assert [(_red(image), label) for image, label in tars] == [(n, n) for n in range(4)]
    assert [sample.key for sample in tars._samples] == ["a", "photo", "IMG_1", "b"]
    assert len(Tars(str(tmp_path / "a.tar"), image="v2.jpg", label="v2.cls")) == 1


def test_an_extension_as_it_is_goes_before_the_end_of_a_longer_one(tmp_path: Path) -> None:
    members = {"1.mask.png": _picture(1), "1.jpg": _picture(2), "._1.jpg": b"hidden"}
    tars = Tars(str(_write(tmp_path / "a.tar", members)))
    assert [_red(image) for image in tars] == [2]


def test_hidden_members_are_left_out(tmp_path: Path) -> None:
    members = {f"./{name}": data for name, data in _samples(range(2)).items()}
    for folder in (".ipynb_checkpoints", "__MACOSX", "train/.thumbnails", "train/@eaDir/1.png"):
        members |= {f"{folder}/9.png": b"hidden", f"{folder}/9.cls": b"hidden"}
    members |= {"train/._1.png": b"hidden", "Thumbs.db": b"hidden", "train/.DS_Store": b"hidden"}
    path = _write(tmp_path / "a.tar", members)
    _add_link(path, "train/.latest", "1.png", tarfile.SYMTYPE)
    assert [(_red(image), label) for image, label in Tars(str(path))] == [(0, 0), (1, 1)]


def test_a_wildcard_names_no_hidden_tars(tmp_path: Path) -> None:
    for folder in ("a", "b", "__MACOSX", ".cache"):
        (tmp_path / folder).mkdir()
        _write(tmp_path / folder / "t.tar", _samples(range(2)))
        (tmp_path / folder / "._t.tar").write_bytes(b"hidden")
    assert len(Tars(f"{tmp_path}/*/*.tar")) == 4
    assert len(Tars(f"{tmp_path}/.cache/*.tar")) == 2
    assert len(Tars(f"{tmp_path}/.c*/*.tar")) == 2


def test_members_of_every_ending_that_pillow_reads_are_images(tmp_path: Path) -> None:
    members = {}
    for n, ending in enumerate(("png", "jfif", "tga", "v2.jp2", "heiic", "heiic")):
        members |= {f"{n}.{ending}": _picture(n), f"{n}.cls": b"%d" % n}
    tars = Tars(str(_write(tmp_path / "a.tar", members)))
    assert [label for _, label in tars] == [0, 1, 2, 3]
    assert tars.notes == [f"{tmp_path}/a.tar: 2 samples have no image that Pillow reads: 2 .heiic"]


def test_a_usual_ending_goes_before_others_of_a_sample(tmp_path: Path) -> None:
    members = {"1.jpg": _picture(1), "1.pbm": _picture(2), "1.tga": _picture(3)}
    tars = Tars(str(_write(tmp_path / "a.tar", members)))
    assert [_red(image) for image in tars] == [1]
    assert tars.fingerprint.endswith(" None None")


def test_tars_that_were_begun_when_fewer_members_were_read_go_on_with_those(
    tmp_path: Path,
) -> None:
    members = {**_samples(range(2)), "2.tga": _picture(2), ".old/3.png": _picture(3)}
    members |= {".old/3.cls": b"3"}
    path = _write(tmp_path / "a.tar", members)
    begun = f"{stamps(Path(), [path])} None None"
    with pytest.raises(LightsaeError, match=r"2 has no .cls, expected a label for every image"):
        Tars(str(path))
    tars = Tars(str(path), begun={begun})
    assert [_red(image) for image, _ in tars] == [0, 1, 3]
    assert tars.fingerprint == begun
    path = _write(tmp_path / "a.tar", {"2.tga": _picture(2), "2.cls": b"2", **_samples(range(2))})
    tars = Tars(str(path))
    assert [_red(image) for image, _ in tars] == [2, 0, 1]
    assert tars.fingerprint != f"{stamps(Path(), [path])} None None"


def test_a_member_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", {"x/1.jpg": _picture(1)})
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("x/1.jpg"))
    with pytest.raises(LightsaeError, match=f"^{path}: x/1.jpg is there twice, expected it once$"):
        Tars(str(path))


def _add_link(path: Path, name: str, target: str, kind: bytes = tarfile.LNKTYPE) -> None:
    with tarfile.open(path, "a") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, target
        tar.addfile(entry)


def test_a_hard_link_is_the_file_that_it_is_to(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", _samples(range(2)))
    _add_link(path, "train/002.png", "train/001.png")
    _add_link(path, "train/002.cls", "train/000.cls")
    _add_link(path, "train/003.png", "train/002.png")
    _add_link(path, "train/003.cls", "train/002.cls")
    found = [(_red(image), label) for image, label in Tars(str(path))]
    assert found == [(0, 0), (1, 1), (1, 0), (1, 0)]


def test_what_tar_packs_of_a_file_with_two_names_is_read(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(_picture(5))
    (tmp_path / "2.png").hardlink_to(tmp_path / "1.png")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("1.png", "2.png"):
            tar.add(tmp_path / name, name)
    assert [_red(image) for image in Tars(str(tmp_path / "a.tar"))] == [5, 5]


def test_a_link_out_of_the_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside.png").write_bytes(_picture(1))
    for target in (f"{tmp_path}/outside.png", "../outside.png", "train/009.png"):
        path = _write(tmp_path / "a.tar", _samples(range(2)))
        _add_link(path, "train/002.png", target)
        says = f"^{path}: train/002.png is a hard link to {target}, expected a file of this tar$"
        with pytest.raises(LightsaeError, match=says):
            Tars(str(path))


def test_a_symbolic_link_in_a_tar_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", _samples(range(2)))
    _add_link(path, "train/002.png", "001.png", tarfile.SYMTYPE)
    says = f"^{path}: train/002.png is a symbolic link, expected files and hard links "
    with pytest.raises(LightsaeError, match=says):
        Tars(str(path))


def test_a_brace_without_its_other_is_told() -> None:
    pytest.importorskip("braceexpand")
    says = r"^data.webdataset is 'a-{0000..0001.tar': Unb.*; expected pairs of braces, such"
    with pytest.raises(LightsaeError, match=says):
        Tars("a-{0000..0001.tar")


@pytest.mark.parametrize("cut", [1, 100, 512, 700, 1024, 2048, 2500, 3584])
def test_a_truncated_tar_is_named(tmp_path: Path, cut: int) -> None:
    path = _write(tmp_path / "a.tar", _samples(range(3)))
    Tars(str(path))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(LightsaeError, match=f"^{path}: is truncated or no tar: "):
        Tars(str(path))


def test_a_tar_that_is_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", _samples(range(3)))
    data = bytearray(path.read_bytes())
    data[2048:2148] = b"x" * 100
    path.write_bytes(data)
    with pytest.raises(LightsaeError, match=f"^{path}: is damaged at byte 2048, expected a member"):
        Tars(str(path))


def test_tars_that_were_joined_as_files_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", _samples(range(2)))
    whole = path.read_bytes()
    path.write_bytes(whole + whole)
    says = (
        f"^{path}: goes on behind its end at byte [0-9]+, expected one tar .tar -A joins several.$"
    )
    with pytest.raises(LightsaeError, match=says):
        Tars(str(path))
    path.write_bytes(whole + bytes(3 << 20))
    assert len(Tars(str(path))) == 2


def test_a_tar_of_nothing_says_so(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", {})
    with pytest.raises(LightsaeError, match=r"a.tar has no images \(it has nothing\)$"):
        Tars(str(path))


@pytest.mark.parametrize("label", ["1_0", "\u0663", "3.0", "", str(1 << 63)])
def test_a_label_that_is_no_integer_is_told_at_once(tmp_path: Path, label: str) -> None:
    path = _write(tmp_path / "a.tar", {"1.png": b"", "1.cls": label.encode()})
    with pytest.raises(LightsaeError, match=rf"^{path}: 1.cls is '{label}', expected an integer$"):
        Tars(str(path))


def test_a_compressed_tar_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar.gz", _samples(range(2)), "w:gz")
    with pytest.raises(LightsaeError, match=r"\(random access needs a plain, whole tar\)$"):
        Tars(str(path))


def test_a_tar_that_is_not_there_is_named(tmp_path: Path, two: str) -> None:
    pytest.importorskip("braceexpand")
    with pytest.raises(LightsaeError, match=f"^data.webdataset: there is no file {tmp_path}/t-2.t"):
        Tars(two.replace("1}", "2}"))


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", {"x/1.png": b"no image", "x/2.png": _picture(2)})
    images, _ = load_images(DataOptions(webdataset=str(path), **OWN), nn.Identity())
    says = f"item 0 of {path} is unreadable: OSError: x/1 in {path}: UnidentifiedImageError: "
    assert images.load(0).problem.startswith(says)
    assert images.load(1).image is not None


def test_a_tar_that_is_cut_after_its_index_was_made_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", _samples(range(3)))
    images, _ = load_images(DataOptions(webdataset=str(path), **OWN), nn.Identity())
    path.write_bytes(path.read_bytes()[:2100])
    assert f"train/002 in {path}: OSError: {path} ends" in images.load(2).problem


def test_another_tar_has_another_fingerprint(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", _samples(range(3)))
    before = Tars(str(path)).fingerprint
    assert Tars(str(path)).fingerprint == before
    _write(path, _samples(range(1, 4)))
    assert Tars(str(path)).fingerprint != before
