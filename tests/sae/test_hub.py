"""Autoencoders go to the Hub and come back, through huggingface_hub and a local server."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from lightsae.errors import LightsaeError
from lightsae.extras import MissingExtraError
from lightsae.sae import SparseAutoencoder, TopK
from lightsae.sae.hub import upload

from .hub_server import OLD_UPLOAD, TOKEN, Hub, ask_at, local_hub

pytestmark = pytest.mark.filterwarnings(OLD_UPLOAD)
NAMES = {"README.md", "sae.json", "sae.safetensors", ".gitattributes"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with local_hub(tmp_path) as hub:
        yield hub


def make_sae(seed: int = 0) -> SparseAutoencoder:
    torch.manual_seed(seed)
    sae = SparseAutoencoder(6, 24, TopK(3))
    sae.initialize_(torch.randn(50, 6) + 2)
    return sae


def saved(folder: Path, seed: int = 0) -> dict[str, bytes]:
    make_sae(seed).save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same(one: SparseAutoencoder, other: SparseAutoencoder) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def refused(*words: object, **options: object) -> str:
    """The message of an autoencoder that is not had; it is one line."""
    with pytest.raises(LightsaeError) as caught:
        SparseAutoencoder.from_pretrained(*words, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_pushed_comes_back_bit_for_bit(hub: Hub) -> None:
    sae = make_sae()
    address = sae.push_to_hub("me/vit")
    (_, (commit, files)) = hub.repos["me/vit"].commits
    assert address == f"{hub.address}/me/vit/commit/{commit}"
    assert set(files) == NAMES
    back = SparseAutoencoder.from_pretrained("me/vit")
    assert same(back, sae)
    assert back.origin == ("me/vit", None, commit)


def test_all_files_are_one_commit_and_large_ones_go_by_lfs(hub: Hub) -> None:
    make_sae().push_to_hub("me/vit")
    assert sum("/commit/" in each for each in hub.asked) == 1
    assert sum(each.startswith("PUT /objects/") for each in hub.asked) == 1


def test_a_subfolder_holds_an_autoencoder_of_its_own(hub: Hub) -> None:
    make_sae(0).push_to_hub("me/vit", "layer_3")
    make_sae(1).push_to_hub("me/vit", "layer_4/wide")
    assert "layer_4/wide/README.md" in hub.repos["me/vit"].commits[-1][1]
    back = SparseAutoencoder.from_pretrained("me/vit", subfolder="layer_4/wide")
    assert same(back, make_sae(1))
    assert back.origin is not None and back.origin.subfolder == "layer_4/wide"


def test_nothing_but_the_two_files_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    hub.add("me/vit", saved(tmp_path / "sae") | {"pytorch_model.bin": b"x", "README.md": b"y"})
    SparseAutoencoder.from_pretrained("me/vit")
    got = [each.rpartition("/")[2] for each in hub.asked if each.startswith("GET")]
    assert got == ["sae.json", "sae.safetensors"]


def test_a_revision_is_what_it_was(hub: Hub) -> None:
    make_sae(0).push_to_hub("me/vit")
    first = hub.repos["me/vit"].commits[-1][0]
    hub.repos["me/vit"].tags["v1"] = first
    make_sae(1).push_to_hub("me/vit")
    for revision in ("v1", first):
        back = SparseAutoencoder.from_pretrained("me/vit", revision=revision)
        assert same(back, make_sae(0))
        assert back.origin is not None and back.origin.revision == first
    assert same(SparseAutoencoder.from_pretrained("me/vit"), make_sae(1))


def test_both_files_are_of_one_commit_though_another_comes_in_between(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add("me/vit", saved(tmp_path / "old", 0))
    download = huggingface_hub.HfApi.hf_hub_download

    def overtaken(*args: object, **options: object) -> object:
        found = download(*args, **options)  # type: ignore[arg-type]
        if len(repo.commits) == 1:
            repo.commit(saved(tmp_path / "new", 1))
        return found

    monkeypatch.setattr(huggingface_hub.HfApi, "hf_hub_download", overtaken)
    assert same(SparseAutoencoder.from_pretrained("me/vit"), make_sae(0))


def test_what_is_in_the_cache_needs_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    make_sae().push_to_hub("me/vit")
    first = SparseAutoencoder.from_pretrained("me/vit")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    again = SparseAutoencoder.from_pretrained("me/vit")
    assert same(again, first)
    assert again.origin == first.origin


def test_a_private_repository_needs_the_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    make_sae().push_to_hub("me/secret", private=True)
    assert hub.repos["me/secret"].private
    assert same(SparseAutoencoder.from_pretrained("me/secret"), make_sae())
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{constants.HF_HUB_CACHE}/other")
    assert refused("me/secret") == (
        f"me/secret: no such repository at {hub.address}; if it is private: `hf auth login`, or "
        "set HF_TOKEN"
    )


def test_a_folder_of_this_machine_needs_no_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    make_sae().save(tmp_path / "run" / "sae")
    back = SparseAutoencoder.from_pretrained(tmp_path / "run", "sae")
    assert same(back, make_sae())
    assert back.origin is None
    with pytest.raises(MissingExtraError, match=r"pip install 'lightsae\[hub\]'"):
        SparseAutoencoder.from_pretrained("me/vit")


def test_a_folder_of_the_name_goes_before_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_sae().save("me/vit")
    assert SparseAutoencoder.from_pretrained("me/vit").origin is None
    assert refused("me/vit", revision="v1") == (
        "me/vit is a folder, revision 'v1' is of repositories"
    )


@pytest.mark.parametrize("subfolder", ["..", "../other", "a/../../b", "/etc", "a\\b", "", "a\0b"])
def test_a_subfolder_that_leaves_the_folder_is_refused(
    subfolder: str, hub: Hub, tmp_path: Path
) -> None:
    for place in ("me/vit", tmp_path):
        assert "is not a folder within the repository" in refused(place, subfolder)
    with pytest.raises(LightsaeError, match="is not a folder within"):
        make_sae().push_to_hub("me/vit", subfolder)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("me/none",), "me/none: no such repository at ADDRESS; if it is private: `hf auth login`"),
        (("me/gated",), "me/gated: is gated: ask for access at ADDRESS/me/gated, then `hf auth"),
        (("me/vits", None, "v9"), "me/vits: has no revision 'v9'"),
        (("me/vits", None, "../v9"), "revision '../v9' is no branch, tag or commit"),
        (("me/vits",), "me/vits has no autoencoder, me/vits has them in 'layer_3'"),
        (
            ("me/vits", "layer_9"),
            "me/vits/layer_9 has no autoencoder, me/vits has them in",
        ),
        (("me/other", "a"), "me/other/a: the repository has no such folder"),
        (("me/other",), "me/other is no autoencoder of this package; `lightsae import` reads"),
        (("no_such_folder",), "no_such_folder: there is no such folder, and a repository of the"),
        (("a/b/c",), "a/b/c: there is no such folder, and a repository of the Hub is OWNER/NAME"),
        (("me/a--b",), "me/a--b: HFValidationError: Cannot have -- or .. in repo_id: 'me/a--b'."),
        ((Path("me/vits"),), "me/vits: there is no such folder"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    words: tuple[object, ...], says: str, hub: Hub, tmp_path: Path
) -> None:
    hub.add("me/gated", {}, gated=True)
    files = saved(tmp_path / "sae")
    hub.add("me/vits", {f"layer_3/{name}": content for name, content in files.items()})
    hub.add("me/other", {"cfg.json": b"{}", "sae_weights.safetensors": b"x"})
    assert says.replace("ADDRESS", hub.address) in refused(*words)


def test_a_hub_that_does_not_answer_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between its attempts
    address = "http://127.0.0.1:9"
    ask_at(monkeypatch, address)
    assert refused("me/vit").startswith(
        f"me/vit: is not in the cache, and {address} cannot be reached (ConnectError: "
    )
    with pytest.raises(LightsaeError, match=f"me/vit: {address}: ConnectError: "):
        make_sae().push_to_hub("me/vit")


def test_offline_says_that_it_is(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    assert refused("me/vit") == "me/vit: is not in the cache, and HF_HUB_OFFLINE is set"


def test_downloads_are_checked_as_load_does(hub: Hub, tmp_path: Path) -> None:
    files = saved(tmp_path / "sae")
    hub.add("me/json", files | {"sae.json": b"not json"})
    assert "sae.json is not JSON" in refused("me/json")
    assert not any("safetensors" in each for each in hub.asked)
    hub.add("me/other", files | {"sae.json": json.dumps({"format": 7}).encode()})
    assert "is not an autoencoder of format 1" in refused("me/other")
    flipped = bytearray(files["sae.safetensors"])
    flipped[-1] ^= 1
    hub.add("me/bits", files | {"sae.safetensors": bytes(flipped)})
    assert "are not as they were saved (hash differs)" in refused("me/bits")
    del files["sae.safetensors"]
    hub.add("me/half", files)
    assert "me/half is no autoencoder of this package" in refused("me/half")


def test_without_a_token_nothing_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(LightsaeError, match="me/vit: there is no token: `hf auth login`, or set"):
        make_sae().push_to_hub("me/vit")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("token", "read_only", "says"),
    [("hf_other", False, "does not know the token"), (TOKEN, True, "the token may not do this")],
)
def test_a_token_that_will_not_do_is_named(
    token: str, read_only: bool, says: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.read_only = read_only
    with pytest.raises(LightsaeError, match=f"^me/vit: .*{says}"):
        make_sae().push_to_hub("me/vit")
    assert hub.repos == {}


def test_only_an_autoencoder_is_uploaded_and_only_to_a_repository(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=r"has no sae\.json, is no autoencoder"):
        upload(tmp_path, "me/vit")
    make_sae().save(tmp_path)
    with pytest.raises(LightsaeError, match="'vit' is no repository of the Hub, expected OWNER"):
        upload(tmp_path, "vit")
    assert hub.asked == []


def test_the_card_that_is_made_does_not_replace_another(hub: Hub) -> None:
    sae = make_sae()
    sae.push_to_hub("me/vit")
    made = hub.repos["me/vit"].commits[-1][1]["README.md"].decode()
    assert yaml.safe_load(made.split("---\n")[1])["library_name"] == "lightsae"
    sae.push_to_hub("me/vit", card="---\nlicense: mit\n---\nMine.\n")
    make_sae(1).push_to_hub("me/vit")
    assert hub.repos["me/vit"].commits[-1][1]["README.md"].endswith(b"Mine.\n")


@pytest.mark.slow
def test_the_address_of_the_hub_is_an_environment_variable(hub: Hub, tmp_path: Path) -> None:
    """As a user has it: a process of its own, nothing of huggingface_hub replaced."""
    program = (
        "import torch; from lightsae.sae import SparseAutoencoder, TopK\n"
        "sae = SparseAutoencoder(6, 24, TopK(3))\n"
        "sae.push_to_hub('me/vit')\n"
        "assert torch.equal(SparseAutoencoder.from_pretrained('me/vit').W_enc, sae.W_enc)\n"
    )
    told = {
        "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | told, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set(hub.repos["me/vit"].commits[-1][1]) == NAMES


def test_a_mistyped_folder_is_told_beside_what_the_hub_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "runs").mkdir()
    with pytest.raises(LightsaeError, match="the folder runs is here, without runs/sea"):
        SparseAutoencoder.from_pretrained("runs/sea")
