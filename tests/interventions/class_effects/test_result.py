import json
from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightsae.errors import LightsaeError
from lightsae.interventions import ClassEffects
from lightsae.interventions.class_effects.result import FILE, LogitChange


def effects() -> ClassEffects:
    torch.manual_seed(0)
    ablation, amplification = (
        LogitChange(*torch.randn(4, 2, 3), p_value=torch.rand(2, 3)) for _ in range(2)
    )
    return ClassEffects(
        "blocks.3", "00c0ffee00c0ffee", 16, 40, 2.0, 7, torch.tensor([3, 5]), torch.tensor([4, 0]),
        torch.tensor([[1, 2], [6, 7]]), ablation, amplification,
    )  # fmt: skip


def test_what_is_saved_comes_back(tmp_path):
    before = effects()
    before.ablation.mean[1] = torch.nan
    before.save(tmp_path / "evaluation")
    assert [path.name for path in (tmp_path / "evaluation").iterdir()] == [FILE]
    after = ClassEffects.load(tmp_path / "evaluation")
    for field in fields(before):
        one, two = getattr(before, field.name), getattr(after, field.name)
        one, two = (each if isinstance(each, tuple) else (each,) for each in (one, two))
        for x, y in zip(one, two, strict=True):
            if isinstance(x, torch.Tensor):
                torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)
            else:
                assert x == y and type(x) is type(y)


def test_q_is_benjamini_hochberg_over_latents_and_classes_that_were_tested():
    change = effects().ablation
    p = change.p_value.clone()
    p[1] = torch.nan
    p[0] = torch.tensor([0.01, 0.4, 0.02])
    found = change._replace(p_value=p).q_value
    assert found.dtype == torch.float32 and found[1].isnan().all()
    assert found[0].tolist() == pytest.approx([0.03, 0.4, 0.03])
    assert change._replace(p_value=torch.full((2, 3), torch.nan)).q_value.isnan().all()
    # The definition: the least p * tests / rank of those at least as large.
    flat = change.p_value.flatten().double()
    order = flat.sort()
    by_rank = [float(p * 6 / (rank + 1)) for rank, p in enumerate(order.values)]
    expected = [min(1.0, *by_rank[rank:], 1.0) for rank in range(6)]
    got = change.q_value.flatten()[order.indices].tolist()
    assert got == pytest.approx(expected)


def damaged(path, *, drop=None, tensors=None, **settings) -> None:
    effects().save(path)
    held = load_file(path / FILE)
    held |= tensors or {}
    held.pop(drop, None)
    header = {
        "format": 1, "layer": "blocks.3", "autoencoder": "00c0ffee00c0ffee", "d_sae": 16,
        "images": 40, "amplify": 2.0, "seed": 7,
    }  # fmt: skip
    save_file(held, path / FILE, {"class_effects": json.dumps(header | settings)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"format": 2}, "has no class effects of format 1"),
        ({"autoencoder": None}, "autoencoder is missing or no str"),
        ({"layer": 3}, "layer is missing or no str"),
        ({"images": "many"}, "images is missing or no int"),
        ({"amplify": float("inf")}, "settings are"),
        ({"drop": "controls"}, "not class effects"),
        ({"tensors": {"more": torch.ones(1)}}, "not class effects"),
        ({"tensors": {"latents": torch.tensor([3, 16])}}, "latents must lie in [0, d_sae = 16)"),
        ({"tensors": {"firing": torch.tensor([3])}}, "firing is [1] torch.int64, expected [2]"),
        ({"tensors": {"ablation.p_value": torch.ones(2, 4)}}, "ablation.p_value is [2, 4]"),
        (
            {"tensors": {"ablation.p_value": torch.full((2, 3), 1.5)}},
            "must lie in [0, 1] or be NaN",
        ),
        ({"tensors": {"latents": torch.ones(2)}}, "latents is [2] torch.float32, expected [2]"),
    ],
)
def test_damaged_files_are_refused_in_a_line(tmp_path, damage, message):
    damaged(tmp_path, **damage)
    with pytest.raises(LightsaeError) as error:
        ClassEffects.load(tmp_path)
    assert message in str(error.value) and FILE in str(error.value)
    assert "\n" not in str(error.value)


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(LightsaeError, match=r"cannot be read as safetensors"):
        ClassEffects.load(tmp_path)
    save_file({"x": torch.ones(1)}, tmp_path / FILE)
    with pytest.raises(LightsaeError, match=r"its header has no JSON of class effects"):
        ClassEffects.load(tmp_path)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LightsaeError, match=r"file.class_effects\.safetensors cannot be written"):
        effects().save(tmp_path / "file")
