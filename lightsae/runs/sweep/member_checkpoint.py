"""The checkpoint of one autoencoder of a stack, as a run of its own would have written it."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from lightsae.training.stacked import Member

_OF_THE_STACK = (
    "failures", "state_dict", "optimizer_states", "lr_schedulers", "anchors", "last_anchored",
    "starts",
)  # fmt: skip


def member_checkpoint(content: dict[str, Any], place: int, member: Member) -> dict[str, Any]:
    """Take one member out of a stack's checkpoint; `lightsae fit` goes on from it.

    Args:
        content: The checkpoint of the stack.
        place: Which of its members.
        member: That member, built.

    Returns:
        Loops and positions of the stack, with the tensors and settings of the member alone.
    """
    prefix, module = f"trained.{place}.", member.module
    found = {name: value for name, value in content.items() if name not in _OF_THE_STACK}
    found["state_dict"] = {
        name.removeprefix(prefix): tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith(prefix)
    }
    for key in ("optimizer_states", "lr_schedulers"):
        found[key] = [of_stack["members"][place] for of_stack in content[key]]
    found[module.CHECKPOINT_HYPER_PARAMS_NAME] = module._hparams_name
    found[module.CHECKPOINT_HYPER_PARAMS_KEY] = dict(module.hparams)
    module.on_save_checkpoint(found)
    # A view would be written with the whole stack behind it.
    own: dict[str, Any] = tree_map_only(Tensor, torch.clone, found)
    return own
