"""`lightsae push`: an autoencoder and its model card into a repository of the Hub."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from lightsae.errors import LightsaeError
from lightsae.files import expanded

_ABOUT = (
    "Put an autoencoder into a repository of the Hugging Face Hub, with a card that has its "
    "settings and the numbers of its evaluation.json. Prints the address of the commit."
)


def push(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Words after `lightsae push`.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: What `push_folder` raises.
    """
    parser = ArgumentParser(prog="lightsae push", description=_ABOUT, exit_on_error=False)
    parser.add_argument(
        "folder", type=str, help="A run folder, or one with sae.safetensors and sae.json."
    )
    parser.add_argument("repo", type=str, help="The repository, OWNER/NAME; made if need be.")
    parser.add_argument("--subfolder", type=str | None, default=None, help="Folder within it.")
    parser.add_argument(
        "--private", type=bool | None, default=None,
        help="Whether a repository that is made is private. (default: as its owner has set)",
    )  # fmt: skip
    parser.add_argument(
        "--license", type=str | None, default=None, help="Its licence, such as apache-2.0."
    )
    parser.add_argument(
        "--base_model", type=str | None, default=None,
        help="Repository of the model whose activations it takes. (default: told by the shards)",
    )  # fmt: skip
    given = parser.parse_args(list(words))
    address = push_folder(
        Path(expanded(given.folder)), given.repo, subfolder=given.subfolder,
        private=given.private, license=given.license, base_model=given.base_model,
    )  # fmt: skip
    print(address)


def push_folder(
    folder: Path,
    repo: str,
    *,
    subfolder: str | None = None,
    private: bool | None = None,
    license: str | None = None,
    base_model: str | None = None,
) -> str:
    """Upload the autoencoder of a folder with its card, in one commit.

    Args:
        folder: A run folder, or one with sae.safetensors and sae.json.
        repo: The repository, OWNER/NAME; made if it is not there.
        subfolder: Folder within it; the card goes there too.
        private: Whether a repository that is made is private; by default as its owner has set.
        license: The Hub's name of a licence, such as apache-2.0.
        base_model: The repository of the model whose activations it takes.

    Returns:
        Address of the commit.

    Raises:
        LightsaeError: If there is no whole autoencoder, a file of the run is not what it should be,
            or what `lightsae.sae.hub.upload` raises.
        MissingExtraError: If huggingface_hub is not installed.
    """
    # What follows needs torch; the options and their help do not.
    from lightsae.report.model_card import run_card
    from lightsae.sae import SparseAutoencoder, hub, save_load

    held = [each for each in (folder / "sae", folder) if (each / save_load.SETTINGS).is_file()]
    if not held:
        raise LightsaeError(
            f"{folder} has no autoencoder, expected {save_load.SETTINGS} or a run's "
            f"sae/{save_load.SETTINGS}; `lightsae export` writes that of a checkpoint"
        )
    inside = None if subfolder is None else hub.inner_path(subfolder)
    SparseAutoencoder.load(held[0])
    card = run_card(folder, held[0], repo, subfolder=inside, license=license, base_model=base_model)
    return hub.upload(held[0], repo, subfolder=inside, card=card, private=private)
