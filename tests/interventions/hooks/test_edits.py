"""With the identity as dictionary every edit has a closed form on the activations themselves."""

import pytest
import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.interventions import (
    Add,
    Clamp,
    Edit,
    MeanAblate,
    Scale,
    Swap,
    ZeroAblate,
    attach,
)
from lightsae.sae import SparseCode

from .models import Tokens, identity_sae, random_sae

LATENTS = [1, 4]
VALUES = torch.tensor([0.25, 1.5], dtype=torch.float64)

CLOSED_FORMS = {
    "add": (Add(LATENTS, VALUES), lambda a: a + VALUES),
    "add-number": (Add(LATENTS, -0.5), lambda a: a - 0.5),
    "scale": (Scale(LATENTS, VALUES), lambda a: a * VALUES),
    "clamp": (Clamp(LATENTS, 0.3, 0.6), lambda a: a.clamp(0.3, 0.6)),
    "clamp-low": (Clamp(LATENTS, low=VALUES), lambda a: a.maximum(VALUES)),
    "clamp-set": (Clamp(LATENTS, 2.0, 2.0), lambda a: torch.full_like(a, 2.0)),
    "zero": (ZeroAblate(LATENTS), torch.zeros_like),
    "mean": (MeanAblate(LATENTS, VALUES), lambda a: VALUES.expand_as(a)),
}


@pytest.fixture
def model() -> Tokens:
    torch.manual_seed(0)
    return Tokens().double()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def expected(model: Tokens, x: Tensor, change, rows=slice(None)) -> Tensor:
    with torch.no_grad():
        hidden = model.layer(x)
        part = hidden[..., LATENTS]
        new = part.clone()
        new[rows] = change(part[rows])
        hidden[..., LATENTS] = new
        return model.head(hidden)


@torch.no_grad()
def edited(model: Tokens, x: Tensor, edit: Edit, error_term: bool = True, **places) -> Tensor:
    sae = identity_sae(8)
    with (
        attach(model, {"layer": sae}, error_term=error_term) as attached,
        attached.edit(edit, **places),
    ):
        return model(x)


@pytest.mark.parametrize("error_term", [True, False])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_edit_equals_its_closed_form(model, x, name, error_term):
    edit, change = CLOSED_FORMS[name]
    found = edited(model, x, edit, error_term)
    torch.testing.assert_close(found, expected(model, x, change), rtol=0, atol=1e-6)


def test_swap_takes_another_inputs_activations(model, x):
    other = torch.randn_like(x)
    sae = identity_sae(8)
    with torch.no_grad(), attach(model, {"layer": sae}) as attached:
        with attached.record() as recording:
            model(other)
        with attached.edit(Swap(LATENTS, recording["layer"])):
            found = model(x)
        with attached.edit(Swap(None, recording["layer"])):
            whole = model(x)
        with attached.record() as one:
            model(other[:1])
        with attached.edit(Swap(LATENTS, one["layer"])):
            from_one = model(x)
    swapped = model.layer(other)[..., LATENTS]
    torch.testing.assert_close(found, expected(model, x, lambda a: swapped), rtol=0, atol=1e-6)
    torch.testing.assert_close(whole, model(other), rtol=0, atol=1e-6)
    single = swapped[:1]
    torch.testing.assert_close(
        from_one, expected(model, x, lambda a: single.expand_as(a)), rtol=0, atol=1e-6
    )


def test_swap_refuses_other_places_and_dictionaries(model, x):
    with torch.no_grad(), attach(model, {"layer": identity_sae(8)}) as attached:
        with attached.record() as recording:
            model(x[:2, :4])
        with (
            pytest.raises(LightsaeError, match=r"has places \[2, 4\], the pass \[3, 5\]"),
            attached.edit(Swap(LATENTS, recording["layer"])),
        ):
            model(x)
        with (
            pytest.raises(LightsaeError, match="has 2 samples, the pass 3"),
            attached.edit(Swap(LATENTS, recording["layer"])),
        ):
            model(x[:, :4])
    other = attach(nn.Sequential(nn.Linear(6, 4)), {"0": identity_sae(4)})
    try:
        with pytest.raises(LightsaeError, match=r"source of Swap has d_sae = 8, .* d_sae = 4"):
            other.edit(Swap([1], recording["layer"]))
    finally:
        other.remove()


@pytest.mark.parametrize("normalization", ["variance", "layer_norm_unbiased", "unit_norm"])
def test_an_edit_is_the_difference_of_two_decoded_codes(model, x, normalization):
    sae = random_sae(8, 32, 4, normalization=normalization).double()
    with torch.no_grad():
        rows = model.layer(x).flatten(0, 1)
        code = sae.encode(rows)
        latents = code.indices[:2, 0].unique()
        values = torch.where(torch.isin(code.indices, latents), 3 * code.values, code.values)
        other = SparseCode(values, code.indices, code.d_sae, code.statistics)
        new = rows + (sae.decode(other) - sae.decode(code))
        with attach(model, {"layer": sae}) as attached, attached.edit(Scale(latents, 3.0)):
            found = model(x)
    torch.testing.assert_close(found, model.head(new.unflatten(0, (3, 5))), rtol=0, atol=1e-10)


def test_edits_act_in_their_order_where_their_latents_overlap(model, x):
    with torch.no_grad(), attach(model, {"layer": identity_sae(8)}) as attached:
        with attached.edit(Add([4, 1], 1.0)), attached.edit(Scale([1, 7], 3.0)):
            found = model(x)
        with attached.edit(Scale(None, 3.0)), attached.edit(Add([4, 1], 1.0)):
            reverse = model(x)
    hidden = model.layer(x)
    after = hidden.clone()
    after[..., [1, 4]] += 1
    after[..., [1, 7]] *= 3
    torch.testing.assert_close(found, model.head(after), rtol=0, atol=1e-6)
    hidden = hidden * 3
    hidden[..., [1, 4]] += 1
    torch.testing.assert_close(reverse, model.head(hidden), rtol=0, atol=1e-6)


PLACES = {
    "positions": ({"positions": [0, -1]}, (slice(None), [0, 4])),
    "samples": ({"samples": [2]}, (2,)),
    "tensor": ({"positions": torch.tensor([0, 4])}, (slice(None), [0, 4])),
    "mask-samples": ({"mask": torch.tensor([True, False, True])}, ([0, 2],)),
    "mask-tokens": (
        {"mask": torch.arange(15).reshape(3, 5) % 4 == 0},
        (torch.arange(15).reshape(3, 5) % 4 == 0),
    ),
    "both": ({"positions": [1], "samples": [0, -1]}, ([0, 2], 1)),
}


@pytest.mark.parametrize("name", PLACES)
def test_only_the_places_asked_for_change(model, x, name):
    places, rows = PLACES[name]
    found = edited(model, x, Scale(LATENTS, 2.0), **places)
    wanted = expected(model, x, lambda a: 2 * a, rows)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    bare = model(x)
    assert not torch.equal(found, bare)
    assert torch.equal((found == bare).all(-1), (wanted == bare).all(-1))


def test_an_edit_of_ones_own(model, x):
    class LargestOnly(Edit):
        def new(self, old: Tensor) -> Tensor:
            return old * (old == old.amax(dim=-1, keepdim=True))

    hidden = model.layer(x)
    hidden = hidden * (hidden == hidden.amax(dim=-1, keepdim=True))
    torch.testing.assert_close(edited(model, x, LargestOnly(None)), model.head(hidden))


def test_an_edit_that_touches_nothing_is_told_unless_it_may(model, x):
    with torch.no_grad(), attach(model, {"layer": identity_sae(8)}) as attached:
        with (
            pytest.raises(LightsaeError, match=r"^Scale of latents 1, 4 at layer 'layer' changed"),
            attached.edit(Scale(LATENTS, 1.0)),
        ):
            model(x)
        with attached.edit(Scale(LATENTS, 1.0), must_touch=False) as handle:
            model(x)
        assert not handle.touched
        with attached.edit(Scale(LATENTS, 2.0)) as handle:
            model(x)
        assert handle.touched


def test_an_edit_in_force_is_checked_where_the_block_of_the_autoencoders_ends(model, x):
    with (
        pytest.raises(LightsaeError, match=r"^Scale of latent 1 at layer 'layer' changed nothing"),
        attach(model, {"layer": identity_sae(8)}) as attached,
    ):
        attached.edit(Scale(torch.tensor(1), 1.0))
        model(x)
    with pytest.raises(LightsaeError, match="autoencoder of layer 'layer' has been removed"):
        attached.edit(Scale([1], 2.0))


def test_a_handle_ends_its_edit(model, x):
    bare = model(x)
    with attach(model, {"layer": identity_sae(8)}) as attached:
        handle = attached.edit(ZeroAblate(LATENTS))
        assert not torch.equal(model(x), bare)
        handle.remove()
        handle.remove()
        assert torch.equal(model(x), bare)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ZeroAblate([8]), r"latents must lie in \[0, d_sae = 8\), got 8"),
        (lambda: ZeroAblate([-1]), r"latents must lie in \[0, d_sae = 8\), got -1"),
        (lambda: ZeroAblate([]), "expected one latent or more"),
        (lambda: ZeroAblate([1, 1]), r"latents are \[1, 1\], expected different ones"),
        (lambda: ZeroAblate(torch.tensor([1.5])), "latents is torch.float32, expected integers"),
        (lambda: Add([1, 2], torch.ones(3)), r"value has shape \[3\], expected a number or \[m ="),
        (lambda: Scale([1], float("nan")), "factor is nan, expected finite numbers"),
        (lambda: MeanAblate(None, torch.ones(3)), r"means has shape \[3\], .* \[m = 8\]"),
        (lambda: Clamp([1]), "Clamp has neither low nor high"),
        (lambda: Clamp([1], 2.0, 1.0), "Clamp has low = 2.0 above high = 1.0"),
        (lambda: Clamp([1, 2], torch.zeros(2), torch.ones(3)), r"high has shape \[3\]"),
        (lambda: ZeroAblate("1"), "latents is '1', expected a list of whole numbers"),
        (lambda: ZeroAblate({1, 2}), r"latents is \{1, 2\}, expected a list of whole numbers"),
        (lambda: Add([1], None), "value is None, expected a number or a tensor"),
        (lambda: Scale([1], "2"), "factor is '2', expected a number or a tensor"),
        (lambda: "zero", "edit is a str, expected an Edit, such as Scale"),
    ],
)
def test_bad_edits_are_refused_before_the_model_runs(model, make, message):
    attached = attach(model, {"layer": identity_sae(8)})
    try:
        with pytest.raises(LightsaeError, match=message):
            attached.edit(make())
        with pytest.raises(LightsaeError, match="no autoencoder at 'lyer'; closest: 'layer'"):
            attached.edit(ZeroAblate([1]), "lyer")
    finally:
        attached.remove()


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"positions": [5]}, r"positions of layer 'layer' must lie in \[-5, 5\), got 5"),
        ({"samples": [3]}, r"samples of layer 'layer' must lie in \[-3, 3\), got 3"),
        ({"mask": torch.ones(3, 4, dtype=torch.bool)}, r"mask is \[3, 4\], .* expected \[3\] or"),
        ({"mask": torch.ones(3, 5)}, r"mask is torch.float32 \[3, 5\], expected bool"),
        ({"positions": []}, "positions is empty"),
        ({"positions": 0}, "positions is 0, expected a list of whole numbers"),
        ({"samples": "0"}, "samples is '0', expected a list of whole numbers"),
        ({"positions": [1.5]}, "positions holds 1.5, expected whole numbers"),
        ({"positions": [True, False]}, "positions holds True, expected whole numbers"),
        ({"mask": [True, False, True]}, "mask is a list, expected a bool tensor"),
    ],
)
def test_places_that_do_not_fit_are_told(model, x, places, message):
    with pytest.raises(LightsaeError, match=message):
        edited(model, x, ZeroAblate(LATENTS), **places)


def test_a_layer_is_named_where_there_are_several(model):
    attached = attach(model, {"layer": identity_sae(8), "head": identity_sae(4)})
    try:
        with pytest.raises(LightsaeError, match="layer is missing: there are layer, head"):
            attached.edit(ZeroAblate([1]))
    finally:
        attached.remove()
