"""The options that name a frozen model: library, name, weights, class path."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lightsae.errors import LightsaeError
from lightsae.files import NameOption, expanded

Library = Literal["timm", "open_clip", "transformers", "torchvision"]


@dataclass
class ModelOptions:
    """The frozen model: a name that a library knows, or any `nn.Module` by class path.

    Attributes:
        name: Name of a model, such as vit_small_patch14_dinov2.lvd142m (timm), ViT-B-32
            (open_clip), facebook/dinov2-small or a folder (transformers), vit_b_16 (torchvision).
        library: Which library knows the name. Of a model of images and text the images' part is
            taken.
        pretrained: Fetch the pretrained weights, unless `weights` are given. open_clip has several
            for a name: `arguments` say which, `{pretrained: laion2b_s34b_b79k}`.
        module: Dotted path of an nn.Module class or of a function that returns a module,
            instead of `name`.
        arguments: Keyword arguments of the model's constructor, or of the library's function that
            makes it.
        weights: Local file of weights (.safetensors, or a torch file of plain tensors).
        prefix_tokens: Number of class and register tokens before the patch tokens; models by name
            say it themselves.

    Raises:
        LightsaeError: If `prefix_tokens` is negative or the library is not one of these.
    """

    name: NameOption | None = None
    library: Library = "timm"
    pretrained: bool = True
    module: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: NameOption | None = None
    prefix_tokens: int | None = None

    def __post_init__(self) -> None:
        self.name, self.weights = (
            None if value is None else expanded(value) for value in (self.name, self.weights)
        )
        if self.prefix_tokens is not None and self.prefix_tokens < 0:
            raise LightsaeError(f"model.prefix_tokens is {self.prefix_tokens}, expected at least 0")
        if self.library not in get_args(Library):
            raise LightsaeError(
                f"model.library is {self.library!r}, expected one of {', '.join(get_args(Library))}"
            )

    @property
    def title(self) -> str:
        """What manifests call the model.

        Example:
            >>> ModelOptions(name="vit_b_16", library="torchvision").title
            'torchvision:vit_b_16'
        """
        if self.name is None:
            return self.module or ""
        return self.name if self.library == "timm" else f"{self.library}:{self.name}"
