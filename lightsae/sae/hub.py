"""Autoencoders on the Hugging Face Hub: the folder that `save` writes, and a card."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.files import expanded
from lightsae.sae.hub_errors import telling_of
from lightsae.sae.model_card import model_card
from lightsae.sae.save_load import SETTINGS, TENSORS, read_settings

CARD = "README.md"
_OTHER_FORMATS = "`lightsae import` reads those of other libraries"
_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_NAMED = 5


class HubOrigin(NamedTuple):
    """Where an autoencoder was downloaded from.

    Attributes:
        repo: The repository, OWNER/NAME.
        subfolder: The folder in it, or None.
        revision: The commit that came, 40 hexadecimal digits, whatever branch or tag was asked for.
    """

    repo: str
    subfolder: str | None
    revision: str


def located(
    repo_or_folder: str | Path, subfolder: str | None = None, revision: str | None = None
) -> tuple[Path, HubOrigin | None]:
    """The folder of an autoencoder: one of this machine, or downloaded into the Hub's cache.

    Args:
        repo_or_folder: A folder if there is one of that name, or else a repository, OWNER/NAME.
        subfolder: Folder within it.
        revision: Branch, tag or commit of the repository; by default its main branch.

    Returns:
        A folder with sae.safetensors and sae.json, both of one commit, and where it came from; None
        for a folder of this machine.

    Raises:
        LightsaeError: If there is no such thing, it is none of this package, a name leaves the
            folder, or the Hub cannot be reached and the files are not in the cache.
        MissingExtraError: If a repository is asked for and huggingface_hub is not installed.

    Example:
        >>> located("no_such_folder")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: no_such_folder: there is no such folder, and a repository \
of the Hub is OWNER/NAME
    """
    inside = None if subfolder is None else inner_path(subfolder)
    folder = Path(expanded(repo_or_folder))
    if folder.is_dir():
        if revision is not None:
            raise LightsaeError(f"{folder} is a folder, revision {revision!r} is of repositories")
        return _local(folder if inside is None else folder / inside), None
    if folder.exists():
        raise LightsaeError(f"{folder} is a file, expected the folder that it is in")
    if revision is not None and (not revision or ".." in revision):
        raise LightsaeError(f"revision {revision!r} is no branch, tag or commit")
    repo = str(repo_or_folder)
    if isinstance(repo_or_folder, Path) or not _REPO.fullmatch(repo):
        raise LightsaeError(
            f"{folder}: there is no such folder, and a repository of the Hub is OWNER/NAME"
        )
    try:
        return _downloaded(repo, inside, revision)
    except LightsaeError as error:
        owner = repo.partition("/")[0]
        if not Path(owner).is_dir():
            raise
        # It may have been meant as a folder.
        raise LightsaeError(f"{error}; the folder {owner} is here, without {folder}") from error


def upload(
    folder: str | Path,
    repo: str,
    *,
    subfolder: str | None = None,
    card: str | None = None,
    private: bool | None = None,
) -> str:
    """Put the files of an autoencoder into a repository, all in one commit.

    Args:
        folder: A folder with sae.safetensors and sae.json.
        repo: The repository, OWNER/NAME; made if it is not there.
        subfolder: Folder within it; the card goes there too.
        card: Text of README.md. By default one that has the sizes and how to load it, unless there
            is a README.md already.
        private: Whether a repository that is made is private; by default as its owner has set.

    Returns:
        Address of the commit.

    Raises:
        LightsaeError: If the folder is no autoencoder, a name cannot be, there is no token, it may
            not write there, or the Hub cannot be reached.
        MissingExtraError: If huggingface_hub is not installed.
    """
    inside = None if subfolder is None else inner_path(subfolder)
    if not _REPO.fullmatch(repo):
        raise LightsaeError(f"{repo!r} is no repository of the Hub, expected OWNER/NAME")
    settings = read_settings(_local(Path(folder)) / SETTINGS)
    hub = require("huggingface_hub", extra="hub")
    if hub.get_token() is None:
        raise LightsaeError(f"{repo}: there is no token: `hf auth login`, or set HF_TOKEN")
    api = _api()
    with telling_of(repo):
        api.create_repo(repo, exist_ok=True, private=private)
        files: dict[str, Path | bytes] = {name: Path(folder) / name for name in (TENSORS, SETTINGS)}
        files |= _card(api, repo, inside, card, settings)
        operations = [
            hub.CommitOperationAdd(path_in_repo=_in_repo(inside, name), path_or_fileobj=content)
            for name, content in files.items()
        ]
        # A streamed upload of a folder could take several commits, of which one is half of a pair.
        commit = api.create_commit(repo, operations, commit_message=_message(inside, settings))
    return str(commit.commit_url)


def inner_path(subfolder: str) -> str:
    """A folder within another, its parts joined by slashes.

    Raises:
        LightsaeError: If it leaves the other.

    Example:
        >>> inner_path("layer_12/width_16k/")
        'layer_12/width_16k'
        >>> inner_path("../secrets")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: subfolder '../secrets' is not a folder within the repository
    """
    path = PurePosixPath(subfolder)
    leaves = path.is_absolute() or ".." in path.parts or re.search(r"[\\\0]", subfolder)
    if leaves or not path.parts:
        raise LightsaeError(f"subfolder {subfolder!r} is not a folder within the repository")
    return str(path)


def _local(folder: Path) -> Path:
    if (folder / SETTINGS).is_file():
        return folder
    inner = [path.parent.name for path in sorted(folder.glob(f"*/{SETTINGS}"))]
    if inner:
        raise LightsaeError(f"{folder} has no autoencoder itself, but in {_listed(inner)}")
    raise LightsaeError(f"{folder} has no {SETTINGS}, is no autoencoder; {_OTHER_FORMATS}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def _downloaded(repo: str, inside: str | None, revision: str | None) -> tuple[Path, HubOrigin]:
    """Both files, the second of the very commit that the first is of."""
    api = _api()
    errors = require("huggingface_hub.errors", extra="hub")
    with telling_of(repo, revision):
        try:
            path = Path(api.hf_hub_download(repo, _in_repo(inside, SETTINGS), revision=revision))
            folder = path.parent
            commit = path.parents[len(PurePosixPath(inside or "").parts)].name
            read_settings(path)
            api.hf_hub_download(repo, _in_repo(inside, TENSORS), revision=commit)
        except errors.RemoteEntryNotFoundError as error:
            raise _absent(api, repo, inside, revision) from error
    return folder, HubOrigin(repo, inside, commit)


def _absent(api: Any, repo: str, inside: str | None, revision: str | None) -> LightsaeError:
    """What a repository has in place of the files that were asked for."""
    found = api.model_info(repo, revision=revision).siblings or []
    paths = [PurePosixPath(each.rfilename) for each in found]
    place = repo if inside is None else f"{repo}/{inside}"
    homes = sorted({str(path.parent) for path in paths if path.name == SETTINGS} - {inside or "."})
    if homes:
        return LightsaeError(f"{place} has no autoencoder, {repo} has them in {_listed(homes)}")
    if inside is not None and not any(path.is_relative_to(inside) for path in paths):
        return LightsaeError(f"{place}: the repository has no such folder")
    return LightsaeError(f"{place} is no autoencoder of this package; {_OTHER_FORMATS}")


def _api() -> Any:
    return require("huggingface_hub", extra="hub").HfApi(library_name="lightsae")


def _card(
    api: Any, repo: str, inside: str | None, card: str | None, settings: Mapping[str, Any]
) -> dict[str, Path | bytes]:
    if card is None:
        if api.file_exists(repo, _in_repo(inside, CARD)):
            return {}
        card = model_card(repo, settings, subfolder=inside)
    return {CARD: card.encode()}


def _message(inside: str | None, settings: Mapping[str, Any]) -> str:
    place = "" if inside is None else f" in {inside}"
    return f"Sparse autoencoder{place}, d_sae {settings['d_sae']}"


def _in_repo(inside: str | None, name: str) -> str:
    return name if inside is None else f"{inside}/{name}"
