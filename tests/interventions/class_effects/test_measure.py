import math

import pytest
import torch
from torch import nn

from lightsae.errors import LightsaeError
from lightsae.interventions import (
    Scale,
    ZeroAblate,
    ablation_effects,
    attach,
    measure_class_effects,
)

from ..finding.planted import D, planted
from ..hooks.models import MaskedTokens, Tokens, ragged, random_sae


def small() -> tuple[nn.Module, object, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)).double()
    images = torch.randn(12, 2, 5, 5, dtype=torch.float64)
    return model, random_sae(8, 24, 4).double(), list(images.split(5))


def changes_one_by_one(model, sae, images, latent, edit) -> torch.Tensor:
    """Changes of logits of each image where the latent fires, run alone."""
    found = []
    with torch.no_grad(), attach(model, {"0": sae}) as attached:
        for image in images.split(1):
            with attached.record() as recording:
                before = model(image)
            if recording["0"].columns([latent]).any():
                with attached.edit(edit):
                    found.append(model(image) - before)
    return torch.cat(found)


def test_means_and_errors_are_those_of_one_image_at_a_time():
    model, sae, batches = small()
    latents = [3, 4, 9]
    found = measure_class_effects(
        model, "0", sae, batches, latents=latents, amplify=3.0, n_random=3, batch_size=7
    )
    assert found.images == 12 and found.latents.tolist() == latents
    for row, latent in enumerate(latents):
        edits = (found.ablation, ZeroAblate(latent)), (found.amplification, Scale(latent, 3.0))
        for got, edit in edits:
            rows = changes_one_by_one(model, sae, torch.cat(batches), latent, edit)
            assert len(rows) == found.firing[row]
            mean, error = rows.mean(0), got.standard_error[row].double()
            torch.testing.assert_close(got.mean[row].double(), mean, rtol=1e-5, atol=1e-7)
            if len(rows) == 1:
                assert error.isnan().all()
                continue
            expected = rows.std(0) / math.sqrt(len(rows))
            torch.testing.assert_close(error, expected, rtol=1e-4, atol=1e-7)
    assert int(found.firing.min()) == 1 < int(found.firing.max())


def test_controls_are_other_latents_and_p_counts_them():
    model, sae, batches = small()
    options = {"n_random": 6, "seed": 3}
    found = measure_class_effects(model, "0", sae, batches, latents=[4], **options)
    controls = found.controls[0].tolist()
    assert len(set(controls)) == 6 and 4 not in controls
    of_controls = measure_class_effects(model, "0", sae, batches, latents=controls, **options)
    assert bool((of_controls.firing > 0).all())
    for name in ("ablation", "amplification"):
        own, others = getattr(found, name), getattr(of_controls, name).mean
        torch.testing.assert_close(own.control_mean[0], others.mean(0))
        torch.testing.assert_close(own.control_sd[0], others.std(0))
        further = (others.abs() >= own.mean[0].abs()).sum(0)
        torch.testing.assert_close(own.p_value[0], (1 + further) / 7)
    again = measure_class_effects(model, "0", sae, batches, latents=[4], **options)
    assert torch.equal(again.controls, found.controls)
    assert torch.equal(again.ablation.mean, found.ablation.mean)
    other = measure_class_effects(model, "0", sae, batches, latents=[4], n_random=6, seed=4)
    assert not torch.equal(other.controls, found.controls)


def test_controls_fire_about_as_often():
    case = planted()
    codes = case.codes(200)
    # Half of the latents are rare.
    codes[:, : D // 2] *= torch.rand(200, D // 2) < 0.1
    found = measure_class_effects(
        case.model, "layer", case.sae, [case.inputs(codes)], latents=[0, D - 1], n_random=5
    )
    rare, often = found.controls < D // 2
    assert bool(rare.all()) and not bool(often.any())


def test_a_causal_latent_stands_out_and_others_do_not():
    case = planted()
    x = case.inputs(case.codes(100))
    causal = max(case.causal, key=lambda latent: abs(float(case.weights[latent])))
    idle = next(latent for latent in range(D) if latent not in case.causal)
    found = measure_class_effects(
        case.model, "layer", case.sae, [{"x": x}], latents=[causal, idle],
        logits=lambda y: torch.cat([y, -y], dim=1), n_random=39, amplify=2.0,
    )  # fmt: skip
    assert found.ablation.p_value[0].tolist() == pytest.approx([1 / 40] * 2)
    assert bool((found.ablation.p_value[1] > 0.5).all())
    torch.testing.assert_close(found.ablation.mean, -found.amplification.mean, atol=1e-6, rtol=0)
    assert float(found.ablation.mean[0, 0]) * float(case.weights[causal]) < 0


def test_a_latent_that_never_fires_has_no_effect_to_tell():
    model, sae, batches = small()
    with torch.no_grad():
        sae.b_enc[7] = -1e3
    found = measure_class_effects(model, "0", sae, batches, latents=[7, 4], n_random=3)
    assert found.firing[0] == 0
    for change in (found.ablation, found.amplification):
        assert change.mean[0].isnan().all() and change.p_value[0].isnan().all()
        assert change.mean[1].isfinite().all() and change.control_mean.isfinite().all()


def test_outputs_with_logits_are_read():
    class Named(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> object:
            return type("Output", (), {"logits": self.inner(x)})()

    model, sae, batches = small()
    options = {"latents": [4], "n_random": 3}
    plain = measure_class_effects(model, "0", sae, batches, **options)
    named = measure_class_effects(Named(model), "inner.0", sae, batches, **options)
    assert torch.equal(plain.ablation.mean, named.ablation.mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amplify": 1.0}, "amplify is 1.0, expected a factor other than 0 and 1"),
        ({"amplify": math.nan}, "amplify is nan, expected a factor other than 0 and 1"),
        ({"n_random": 0}, "n_random is 0, expected 1 or more"),
        ({"n_random": 24}, "n_random is 24: besides latent 4 only 23 fire on these images"),
        ({"latents": [24]}, "latents must lie in [0, d_sae = 24), got 24"),
        ({"logits": lambda y: y[0]}, "logits gives [3], expected logits [5, classes]"),
        ({"logits": lambda y: 3}, "logits gives int, expected logits [5, classes]"),
        ({"logits": lambda y: y / 0}, "logits hold NaN or inf, expected finite numbers"),
    ],
)
def test_mistakes_are_told_in_a_line(options, message):
    model, sae, batches = small()
    with pytest.raises(LightsaeError) as error:
        measure_class_effects(model, "0", sae, batches, **{"latents": [4], **options})
    assert str(error.value) == message


def test_what_a_model_gives_is_told():
    class Gives(nn.Module):
        def __init__(self, inner, change):
            super().__init__()
            self.inner, self.change = inner, change

        def forward(self, x):
            return self.change(self.inner(x))

    model, sae, batches = small()
    for change, given in (
        (lambda y: (y, None), "tuple"),
        (lambda y: y[:, 0], "[5]"),
        (lambda y: {"scores": y}, "dict"),
    ):
        with pytest.raises(LightsaeError) as error:
            measure_class_effects(Gives(model, change), "inner.0", sae, batches, latents=[4])
        assert str(error.value) == (
            f"the model gives {given}, expected logits [5, classes]: logits=... makes them of it"
        )
    one = Gives(model, lambda y: y[:, :1])
    found = measure_class_effects(one, "inner.0", sae, batches, latents=[4], n_random=3)
    assert found.ablation.mean.shape == (1, 1)


@pytest.mark.parametrize("part", [nn.Dropout(0.1), nn.BatchNorm1d(72, dtype=torch.float64)])
def test_a_model_in_training_mode_is_refused(part):
    model, sae, batches = small()
    model.insert(3, part)
    with pytest.raises(LightsaeError, match=r"^model.3, .* in training mode: call model.eval\(\)"):
        measure_class_effects(model, "0", sae, batches, latents=[4], n_random=3)
    with pytest.raises(LightsaeError, match="is in training mode"):
        ablation_effects(model, "0", sae, batches[0], lambda y: y[:, 0])
    assert measure_class_effects(model.eval(), "0", sae, batches, latents=[4], n_random=3).images


def test_images_that_change_from_reading_to_reading_are_refused():
    class Augmented:
        def __init__(self, batches):
            self.batches, self.sign = batches, -1

        def __iter__(self):
            self.sign = -self.sign
            return (self.sign * batch for batch in self.batches)

    model, sae, batches = small()
    with pytest.raises(LightsaeError, match=r"^batches differ between their two readings"):
        measure_class_effects(model, "0", sae, Augmented(batches), latents=[4], n_random=3)


def test_batches_are_read_twice():
    model, sae, batches = small()
    with pytest.raises(LightsaeError, match=r"^batches can be read once only, expected a list or"):
        measure_class_effects(model, "0", sae, iter(batches), latents=[4])
    with pytest.raises(LightsaeError, match=r"^batches is empty, expected one batch or more$"):
        measure_class_effects(model, "0", sae, [], latents=[4])


def test_positions_are_where_latents_are_looked_for_and_changed():
    torch.manual_seed(1)
    model = Tokens().eval().double()
    sae = random_sae(8, 24, 4).double()
    x = torch.randn(9, 5, 6, dtype=torch.float64)
    options = {"n_random": 3, "positions": [0], "logits": lambda y: y.mean(1)}
    with torch.no_grad(), attach(model, {"layer": sae}) as attached:
        with attached.record() as recording:
            before = model(x).mean(1)
        first = recording["layer"].to_dense()[:, 0]
        latent = int((first > 0).sum(0).argmax())
        with attached.edit(ZeroAblate(latent), positions=[0]):
            change = (model(x).mean(1) - before)[first[:, latent] > 0]
    found = measure_class_effects(model, "layer", sae, [x], latents=[latent], **options)
    assert found.firing.tolist() == [len(change)]
    torch.testing.assert_close(found.ablation.mean[0].double(), change.mean(0), atol=1e-7, rtol=0)
    everywhere = measure_class_effects(
        model, "layer", sae, [x], latents=[latent], **options | {"positions": None}
    )
    assert everywhere.firing[0] > found.firing[0]
    assert not torch.allclose(everywhere.ablation.mean, found.ablation.mean)
    with pytest.raises(LightsaeError, match=r"^positions of layer 'layer' must lie in \[-5, 5\)"):
        measure_class_effects(
            model, "layer", sae, [x], latents=[latent], **options | {"positions": [5]}
        )


def test_padding_counts_for_nothing():
    torch.manual_seed(1)
    model, sae = MaskedTokens().eval().double(), random_sae(8, 24, 4).double()
    padded, alone = ragged()
    options = {"latents": [4, 9, 17], "n_random": 3}
    found, expected = (
        measure_class_effects(model, "layer", sae, batches, **options)
        for batches in ([padded], alone)
    )
    assert torch.equal(found.firing, expected.firing)
    assert torch.equal(found.controls, expected.controls)
    torch.testing.assert_close(found.ablation, expected.ablation, equal_nan=True)
    torch.testing.assert_close(found.amplification, expected.amplification, equal_nan=True)
    unmasked = padded | {"attention_mask": torch.ones_like(padded["attention_mask"])}
    everywhere = measure_class_effects(model, "layer", sae, [unmasked], **options)
    assert not torch.equal(everywhere.firing, found.firing)
