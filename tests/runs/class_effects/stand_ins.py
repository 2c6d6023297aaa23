"""Models that tests name by their class path."""

from torch import Tensor, nn

from lightsae.activations.sources.digits import Training, train_digits_vit


def briefly_trained(folder: str, steps: int = 40) -> nn.Module:
    """The transformer of the quickstart after a few steps."""
    return train_digits_vit(folder, Training(steps=steps))


class Headless(nn.Module):
    """Gives the tokens instead of logits."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        inner = briefly_trained(folder)
        self.num_prefix_tokens = 1
        for name, part in inner.named_children():
            self.add_module(name, part)
        for name, parameter in inner.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self._forward = inner.forward_features

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self._forward(x)
        return found
