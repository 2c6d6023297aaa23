"""Saving, loading and sharing of an autoencoder: two files, sae.safetensors and sae.json."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.sae import hub, save_load
from lightsae.sae.normalization import Normalization
from lightsae.sae.selection import SELECTIONS, Selection


class SavedAutoencoder(nn.Module):
    """What `SparseAutoencoder` is on the disk and on the Hugging Face Hub.

    Attributes:
        W_enc: Encoder, [d_sae, d_in].
        scale: Input scale, a scalar buffer.
        selection: Which latents stay.
        normalization: What is done to inputs before they are encoded.
        apply_b_dec_to_input: Whether b_dec is subtracted from them.
        provenance: Where it comes from, JSON.
        origin: The repository that it was loaded from, if any; not saved.
    """

    W_enc: nn.Parameter
    scale: Tensor
    selection: Selection
    normalization: Normalization
    apply_b_dec_to_input: bool
    provenance: dict[str, Any]
    origin: hub.HubOrigin | None = None

    def save(self, folder: str | Path) -> None:
        """Write sae.safetensors and sae.json into a folder, each replaced as a whole.

        The JSON holds the sizes, the selection rule with its k and the input normalisation.

        Args:
            folder: Where; made if it is not there.

        Raises:
            LightsaeError: If the selection rule is not one of this package, a tensor has NaN or
                inf, or the folder cannot be written.
        """
        rule = type(self.selection).__name__
        if SELECTIONS.get(rule) is not type(self.selection):
            raise LightsaeError(f"selection rule {rule} has no file format: {list(SELECTIONS)}")
        save_load.write(Path(folder), dict(self.state_dict()), self._settings())

    def _settings(self) -> dict[str, Any]:
        """What the JSON holds."""
        rule = type(self.selection).__name__
        return {
            "d_in": self.W_enc.shape[1],
            "d_sae": len(self.W_enc),
            "dtype": str(self.W_enc.dtype).removeprefix("torch."),
            "selection": {"rule": rule, **self.selection.settings()},
            "normalization": {
                "kind": self.normalization,
                "divide_by": self.scale.item(),
                "subtract": "b_dec" if self.apply_b_dec_to_input else "nothing",
            },
            "provenance": self.provenance,
        }

    @classmethod
    def _from_settings(
        cls, settings: dict[str, Any], selection: Selection, kind: Normalization
    ) -> Self:
        """An autoencoder for the tensors of a file, with weights of its own as yet."""
        subtracts = settings["normalization"].get("subtract", "b_dec") == "b_dec"
        return cls(settings["d_in"], settings["d_sae"], selection, kind, subtracts)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote, on the CPU and in the dtype it was saved in.

        Args:
            folder: The folder with sae.safetensors and sae.json.

        Returns:
            An autoencoder of the class that was saved, such as a `Transcoder`.

        Raises:
            LightsaeError: If a file is missing, malformed, altered or does not fit the other, or
                holds another class than the one it is read as.

        Example:
            >>> import tempfile
            >>> from lightsae.sae import SparseAutoencoder, TopK
            >>> folder = tempfile.mkdtemp()
            >>> SparseAutoencoder(4, 16, TopK(2)).save(folder)
            >>> SparseAutoencoder.load(folder).selection.k
            2
        """
        settings, tensors = save_load.read(Path(folder))
        path = Path(folder) / save_load.SETTINGS
        saved = save_load.saved_class(cls, settings.get("class"), path)
        rule = dict(settings["selection"])
        name = rule.pop("rule", None)
        if not isinstance(name, str) or name not in SELECTIONS:
            raise LightsaeError(f"{path}: unknown selection rule {name!r}: {list(SELECTIONS)}")
        # Files that are older than the choice have no kind.
        kind = settings["normalization"].get("kind", "variance")
        try:
            # On meta, wrong sizes allocate nothing and no random number is drawn.
            with torch.device("meta"):
                selection = SELECTIONS[name](**rule)
                sae: Self = saved._from_settings(settings, selection, kind)
            sae.to(getattr(torch, settings["dtype"]))
        except (TypeError, RuntimeError, LightsaeError) as error:
            raise LightsaeError(f"{path}: {str(error).splitlines()[0]}") from error
        save_load.require_promised(Path(folder), tensors, dict(sae.state_dict()))
        for name in ("scale", "target_scale"):
            if name in tensors and not tensors[name] > 0:
                raise LightsaeError(
                    f"{Path(folder) / save_load.TENSORS}: tensor {name!r} is not positive"
                )
        sae.load_state_dict({name: t.clone() for name, t in tensors.items()}, assign=True)
        sae.provenance = settings.get("provenance", {})
        return sae

    @classmethod
    def from_pretrained(
        cls, repo_or_folder: str | Path, subfolder: str | None = None, revision: str | None = None
    ) -> Self:
        """Load from a folder, or from a repository of the Hugging Face Hub.

        Of a repository nothing but sae.json and sae.safetensors is downloaded, both of one commit,
        which `origin` keeps. They are checked as `load` does.

        Args:
            repo_or_folder: A folder if there is one of that name, or else a repository, OWNER/NAME.
            subfolder: Folder within it.
            revision: Branch, tag or commit of the repository; by default its main branch.

        Raises:
            LightsaeError: What `hub.located` and `load` raise.
            MissingExtraError: If a repository is asked for and huggingface_hub is not installed.

        Example:
            >>> import tempfile
            >>> from lightsae.sae import SparseAutoencoder, TopK
            >>> folder = tempfile.mkdtemp()
            >>> SparseAutoencoder(4, 16, TopK(2)).save(f"{folder}/layer_3")
            >>> SparseAutoencoder.from_pretrained(folder, subfolder="layer_3").d_sae
            16
        """
        folder, origin = hub.located(repo_or_folder, subfolder, revision)
        sae = cls.load(folder)
        sae.origin = origin
        return sae

    def push_to_hub(
        self,
        repo: str,
        subfolder: str | None = None,
        *,
        card: str | None = None,
        private: bool | None = None,
    ) -> str:
        """Save into a repository of the Hugging Face Hub, in one commit; see `hub.upload`.

        Args:
            repo: The repository, OWNER/NAME; made if it is not there.
            subfolder: Folder within it.
            card: Text of README.md. By default one that has the sizes and how to load it, unless
                there is a README.md already.
            private: Whether a repository that is made is private; by default as its owner has set.

        Returns:
            Address of the commit.

        Raises:
            LightsaeError: What `save` and `hub.upload` raise.
            MissingExtraError: If huggingface_hub is not installed.
        """
        with TemporaryDirectory() as folder:
            self.save(folder)
            return hub.upload(folder, repo, subfolder=subfolder, card=card, private=private)
