"""A saved autoencoder comes back bit for bit, or a single error says which file is wrong."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from lightsae import files
from lightsae.errors import LightsaeError
from lightsae.sae import Selection, SparseAutoencoder, TopK, save_load

from .helpers import untied

D_IN, D_SAE, K = 3, 8, 2
TENSORS, SETTINGS = "sae.safetensors", "sae.json"
PROMISED = {
    "d_in": D_IN,
    "d_sae": D_SAE,
    "dtype": "float64",
    "selection": {"rule": "TopK", "k": K},
    "normalization": {"kind": "variance", "divide_by": 1.0, "subtract": "b_dec"},
}


def autoencoder(seed: int = 0) -> SparseAutoencoder:
    return untied(D_IN, D_SAE, K, seed=seed)


def same(a: SparseAutoencoder, b: SparseAutoencoder) -> bool:
    """Equal in every bit, every dtype and the selection rule."""
    mine, other = a.state_dict(), b.state_dict()
    return (
        list(mine) == list(other)
        and all(mine[n].dtype == other[n].dtype for n in mine)
        and all(bytes_of(mine[n]) == bytes_of(other[n]) for n in mine)
        and type(a.selection) is type(b.selection)
        and a.selection.settings() == b.selection.settings()
    )


def bytes_of(t: Tensor) -> list[int]:
    flat: list[int] = t.detach().contiguous().view(-1).view(torch.uint8).tolist()
    return flat


def assert_refused(folder: Path, *words: str) -> None:
    """Loading is one error, on one line, that holds all the words."""
    with pytest.raises(LightsaeError) as caught:
        SparseAutoencoder.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def write(folder: Path, tensors: dict[str, Any] | None = None, **settings: Any) -> None:
    """A well-formed pair with a valid hash, whatever it says."""
    state = {**autoencoder().state_dict(), **(tensors or {})}
    save_load.write(folder, {n: t for n, t in state.items() if t is not None}, PROMISED | settings)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_the_round_trip_is_exact(tmp_path: Path, dtype: torch.dtype) -> None:
    sae = autoencoder().to(dtype)
    sae.scale.fill_(0.7)
    sae.save(tmp_path)
    loaded = SparseAutoencoder.load(tmp_path)
    assert same(sae, loaded)
    x = torch.randn(5, D_IN).to(dtype)
    assert torch.equal(sae(x), loaded(x))


def test_the_settings_say_how_to_use_it_without_the_tensors(tmp_path: Path) -> None:
    sae = autoencoder().float()
    sae.scale.fill_(4)
    sae.save(str(tmp_path))
    described = json.loads((tmp_path / SETTINGS).read_text())
    assert described.pop("xxh3")
    assert described == {
        "format": 1,
        "provenance": {},
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "float32",
        "selection": {"rule": "TopK", "k": K},
        "normalization": {"kind": "variance", "divide_by": 4.0, "subtract": "b_dec"},
    }


def test_what_is_loaded_can_be_trained(tmp_path: Path) -> None:
    autoencoder().save(tmp_path)
    loaded = SparseAutoencoder.load(tmp_path)
    assert all(isinstance(p, torch.nn.Parameter) and p.requires_grad for p in loaded.parameters())
    assert len(list(loaded.parameters())) == 4
    loaded(torch.randn(5, D_IN).double()).sum().backward()
    torch.optim.Adam(loaded.parameters()).step()
    assert not same(loaded, autoencoder())


def test_loading_draws_no_random_number(tmp_path: Path) -> None:
    autoencoder().save(tmp_path)
    before = torch.get_rng_state()
    SparseAutoencoder.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_saving_makes_the_folder_and_replaces_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    autoencoder(1).save(folder)
    autoencoder(2).save(folder)
    assert same(SparseAutoencoder.load(folder), autoencoder(2))
    assert sorted(path.name for path in folder.iterdir()) == [SETTINGS, TENSORS]


def test_a_subclass_loads_as_itself(tmp_path: Path) -> None:
    class Mine(SparseAutoencoder):
        pass

    autoencoder().save(tmp_path)
    assert type(Mine.load(tmp_path)) is Mine


@pytest.mark.parametrize("name", [TENSORS, SETTINGS])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    autoencoder().save(tmp_path)
    (tmp_path / name).unlink()
    assert_refused(tmp_path, str(tmp_path / name), "cannot be read: No such file")


def test_a_missing_folder_or_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", str(tmp_path / "nowhere" / SETTINGS), "No such file")
    (tmp_path / "file").write_text("")
    assert_refused(tmp_path / "file", str(tmp_path / "file"), "Not a directory")


@pytest.mark.parametrize("name", [TENSORS, SETTINGS])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, part: float) -> None:
    autoencoder().save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(part * len(content))])
    assert_refused(tmp_path, str(tmp_path / name))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    autoencoder().save(folder)
    return folder


@pytest.mark.parametrize("name", [TENSORS, SETTINGS])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_flipped_bit_is_refused_or_means_nothing(
    saved: Path, name: str, place: float, bit: int
) -> None:
    """A blank may become another blank; nothing may load as something else."""
    path = saved / name
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[int(place * len(flipped))] ^= 1 << bit
    path.write_bytes(flipped)
    try:
        loaded = SparseAutoencoder.load(saved)
    except LightsaeError as error:
        assert str(saved) in str(error)
    else:
        assert name == SETTINGS
        assert same(loaded, autoencoder())
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    "text",
    ["", "{", "not json", "\x00\x01", "[" * 100_000],
    ids=["empty", "open", "words", "binary", "nested"],
)
def test_settings_that_are_not_json_are_refused(tmp_path: Path, text: str) -> None:
    autoencoder().save(tmp_path)
    (tmp_path / SETTINGS).write_text(text)
    assert_refused(tmp_path, str(tmp_path / SETTINGS), "is not JSON")


def test_settings_that_are_not_text_are_refused(tmp_path: Path) -> None:
    autoencoder().save(tmp_path)
    (tmp_path / SETTINGS).write_bytes(b"\xff\xfe\xfa")
    assert_refused(tmp_path, str(tmp_path / SETTINGS), "is not JSON")


@pytest.mark.parametrize("text", ["[]", "3", "null", '"sae"', "{}", '{"format": 2}'])
def test_settings_of_something_else_are_refused(tmp_path: Path, text: str) -> None:
    autoencoder().save(tmp_path)
    (tmp_path / SETTINGS).write_text(text)
    assert_refused(tmp_path, str(tmp_path / SETTINGS), "is not an autoencoder of format 1")


@pytest.mark.parametrize("key", ["d_in", "d_sae", "dtype", "selection", "xxh3"])
@pytest.mark.parametrize("value", [None, True, 2.5, [3]], ids=repr)
def test_a_key_of_another_type_is_named(tmp_path: Path, key: str, value: Any) -> None:
    autoencoder().save(tmp_path)
    path = tmp_path / SETTINGS
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert_refused(tmp_path, str(path), f"key '{key}' is missing or not of type")


@pytest.mark.parametrize("rule", ["BatchBottomK", None, ["TopK"], 3], ids=repr)
def test_an_unknown_selection_rule_is_named(tmp_path: Path, rule: Any) -> None:
    write(tmp_path, selection={"rule": rule, "k": K})
    assert_refused(tmp_path, str(tmp_path / SETTINGS), f"unknown selection rule {rule!r}", "TopK")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "'k'"),
        ({"k": K, "temperature": 1}, "'temperature'"),
        ({"k": 0}, "k must be an integer of at least 1, got 0"),
        ({"k": 2.5}, "k must be an integer of at least 1, got 2.5"),
        ({"k": "2"}, "k must be an integer of at least 1, got '2'"),
        ({"k": D_SAE + 1}, f"k = {D_SAE + 1} is larger than d_sae = {D_SAE}"),
    ],
    ids=["missing", "extra", "zero", "fraction", "text", "too-large"],
)
def test_arguments_that_the_rule_refuses_are_named(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    write(tmp_path, selection={"rule": "TopK", **arguments})
    assert_refused(tmp_path, str(tmp_path / SETTINGS), message)


@pytest.mark.parametrize("dtype", ["int8", "torch.float32", "", "complex64"], ids=repr)
def test_a_dtype_that_is_none_of_ours_is_named(tmp_path: Path, dtype: str) -> None:
    write(tmp_path, dtype=dtype)
    assert_refused(tmp_path, str(tmp_path / SETTINGS), f"key 'dtype' is '{dtype}'", "bfloat16")


@pytest.mark.parametrize("size", [0, -1, 7, 10**12, 10**40])
@pytest.mark.parametrize("key", ["d_in", "d_sae"])
def test_sizes_that_disagree_are_refused_before_anything_is_allocated(
    tmp_path: Path, key: str, size: int
) -> None:
    write(tmp_path, **{key: size})
    assert_refused(tmp_path, str(tmp_path), SETTINGS)


@pytest.mark.parametrize(
    "tensors",
    [
        {"W_dec": None},
        {"W_mid": torch.zeros(2)},
        {"b_enc": torch.zeros(D_SAE + 1).double()},
        {"W_enc": torch.zeros(D_IN, D_SAE).double()},
        {"scale": torch.ones(1).double()},
        {"b_enc": torch.zeros(D_SAE)},
        {"W_enc": torch.zeros(D_SAE, D_IN, dtype=torch.int64)},
        {"W_enc": torch.zeros(D_SAE, D_IN).to(torch.float8_e4m3fn)},
    ],
    ids=["missing", "extra", "length", "transposed", "scale-1-D", "dtype", "integer", "float8"],
)
def test_tensors_that_disagree_with_the_settings_are_named(
    tmp_path: Path, tensors: dict[str, Any]
) -> None:
    write(tmp_path, tensors)
    assert_refused(tmp_path, str(tmp_path / TENSORS), f"{SETTINGS} promises", *tensors)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "scale"])
def test_a_value_that_is_not_finite_is_refused_on_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    autoencoder(1).save(tmp_path)
    broken = autoencoder()
    broken.state_dict()[name].view(-1)[-1] = value
    with pytest.raises(LightsaeError, match=f"tensor '{name}' has NaN or infinite values"):
        broken.save(tmp_path)
    assert same(SparseAutoencoder.load(tmp_path), autoencoder(1)), "the old pair is still there"
    with monkeypatch.context() as careless:
        careless.setattr(save_load, "_require_finite", lambda *_: None)
        broken.save(tmp_path)
    assert_refused(tmp_path, str(tmp_path / TENSORS), f"tensor '{name}' has NaN or infinite values")


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_scale_that_divides_by_nothing_is_refused(tmp_path: Path, scale: float) -> None:
    write(tmp_path, {"scale": torch.tensor(scale).double()})
    assert_refused(tmp_path, str(tmp_path / TENSORS), "tensor 'scale' is not positive")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 64, b"\x10" + b"\0" * 7 + b"{" * 16])
def test_a_tensor_file_with_a_valid_hash_that_is_no_safetensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    with monkeypatch.context() as forged:
        forged.setattr(save_load, "serialize_tensors", lambda _: content)
        write(tmp_path)
    assert (tmp_path / TENSORS).read_bytes() == content
    assert_refused(tmp_path, str(tmp_path / TENSORS), "is not a safetensors file")


def test_halves_of_two_pairs_are_refused(tmp_path: Path) -> None:
    autoencoder(1).save(tmp_path / "a")
    autoencoder(2).save(tmp_path / "b")
    (tmp_path / "a" / TENSORS).replace(tmp_path / "b" / TENSORS)
    assert_refused(tmp_path / "b", str(tmp_path / "b" / TENSORS), SETTINGS, "hash differs")


class PowerCut(BaseException):
    """What no handler of errors sees."""


def cut_at(moment: int) -> Callable[..., None]:
    calls = iter(range(100))

    def fsync(descriptor: int) -> None:
        if next(calls) == moment:
            raise PowerCut

    return fsync


@pytest.mark.parametrize("moment", range(4), ids=lambda m: f"sync-{m}")
def test_an_interrupted_save_leaves_the_old_pair_or_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Each file is synced under a temporary name (0, 2), then its folder (1, 3)."""
    autoencoder(1).save(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(PowerCut):
        patched.setattr(files.os, "fsync", cut_at(moment))
        autoencoder(2).save(tmp_path)
    if moment == 0:
        assert same(SparseAutoencoder.load(tmp_path), autoencoder(1))
    elif moment == 3:
        assert same(SparseAutoencoder.load(tmp_path), autoencoder(2))
    else:
        assert_refused(tmp_path, str(tmp_path / TENSORS), "hash differs")
    assert sorted(path.name for path in tmp_path.iterdir()) == [SETTINGS, TENSORS]
    autoencoder(2).save(tmp_path)
    assert same(SparseAutoencoder.load(tmp_path), autoencoder(2))


def test_a_full_disk_is_one_error_that_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    autoencoder(1).save(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(LightsaeError, match=f"{re.escape(str(tmp_path))} cannot.*No space"):
            autoencoder(2).save(tmp_path)
    assert same(SparseAutoencoder.load(tmp_path), autoencoder(1))


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LightsaeError, match="file cannot be written"):
        autoencoder().save(tmp_path / "file")


def test_a_rule_that_no_reader_knows_is_not_saved(tmp_path: Path) -> None:
    class Other(TopK):
        pass

    impostor: type[Selection] = type("TopK", (TopK,), {})
    for rule in (Other(2), impostor(2)):  # type: ignore[call-arg]
        with pytest.raises(LightsaeError, match="has no file format"):
            SparseAutoencoder(D_IN, D_SAE, rule).save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_dtype_that_torch_cannot_read_is_one_line(tmp_path: Path) -> None:
    narrow = torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    content = serialize_tensors(autoencoder().state_dict() | {"extra": narrow})
    write(tmp_path)
    described = json.loads((tmp_path / SETTINGS).read_text())
    described["xxh3"] = save_load._pair_hash(described, content)
    (tmp_path / SETTINGS).write_text(json.dumps(described))
    (tmp_path / TENSORS).write_bytes(content)
    assert_refused(tmp_path, TENSORS, "is not a safetensors file", "F4")


def test_settings_of_any_size_are_not_read(tmp_path: Path) -> None:
    autoencoder().save(tmp_path)
    with (tmp_path / SETTINGS).open("ab") as file:
        file.write(b" " * (16 << 20))
    with pytest.raises(LightsaeError, match="has more than 16777216 bytes"):
        SparseAutoencoder.load(tmp_path)
