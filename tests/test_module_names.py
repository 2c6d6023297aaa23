import pytest
import torch

from lightsae.module_names import named_as, plain_name


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("blocks.0.weight", "blocks.0.weight"),
        ("_orig_mod.blocks.0.weight", "blocks.0.weight"),
        ("blocks._orig_mod.0._orig_mod.weight", "blocks.0.weight"),
        ("_fsdp_wrapped_module.blocks.0._checkpoint_wrapped_module.weight", "blocks.0.weight"),
        ("blocks.module.weight", "blocks.module.weight"),
    ],
)
def test_wrappers_leave_no_name(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_orig_mod.a.b", "a.b"),
        ("a.b", "_orig_mod.a.b"),
        ("module.a.b", "a.b"),
        ("module._orig_mod.a.b", "a.b"),
        ("_orig_mod.module.a.b", "a._orig_mod.b"),
        ("module.a", "module.a"),
        ("_orig_mod.module.a", "module.a"),
    ],
)
def test_tensors_get_the_names_of_a_model(name: str, expected: str) -> None:
    state = {name: torch.ones(1)}
    assert list(named_as([expected], state)) == [expected]


def test_what_the_model_does_not_have_keeps_its_name() -> None:
    assert list(named_as(["a"], {"module.b": torch.ones(1)})) == ["module.b"]
