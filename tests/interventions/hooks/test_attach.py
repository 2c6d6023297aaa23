import threading

import pytest
import torch
from torch import nn

from lightsae.errors import LightsaeError
from lightsae.interventions import Scale, ZeroAblate, attach
from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder, TopK, Transcoder

from .models import Tokens, identity_sae, random_sae


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Floats as integers, so that -0 is not 0."""
    return tensor.view({4: torch.int32, 2: torch.int16, 8: torch.int64}[tensor.element_size()])


def same_bits(one: torch.Tensor, two: torch.Tensor) -> bool:
    return torch.equal(bits(one), bits(two))


NORMALIZATIONS = ["variance", "layer_norm", "layer_norm_unbiased", "unit_norm", "centre_scale"]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_error_term_and_no_edit_outputs_are_bit_identical(normalization, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    sae = random_sae(8, 32, 4, normalization=normalization)
    x = torch.randn(5, 6, dtype=dtype)
    bare = model(x)
    with attach(model, {"0": sae, "1": random_sae(8, 16, 2)}) as attached:
        assert same_bits(model(x), bare)
        with attached.record() as recording:
            assert same_bits(model(x), bare)
        with attached.edit(Scale(None, 1.0), "0", must_touch=False):
            assert same_bits(model(x), bare)
        with attached.record(gradients=True):
            assert same_bits(model(x), bare)
    assert recording["0"].code.values.shape == (5, 4)


def test_rows_that_no_edit_changes_keep_even_the_sign_of_zero():
    layer = nn.Identity()
    model = nn.Sequential(layer)
    sae = identity_sae(3, torch.float32)
    x = torch.tensor([[-0.0, 0.0, 1.0], [-0.0, 2.0, 0.0]])
    with attach(model, {"0": sae}) as attached:
        for grad in (False, True):
            scale = torch.tensor(2.0, requires_grad=grad)
            with attached.edit(Scale([1], scale)):
                out = model(x)
            assert same_bits(out[0].detach(), x[0])
            assert out[1].tolist() == [0.0, 4.0, 0.0]


@pytest.mark.parametrize(
    ("dtype", "narrow"), [(torch.float32, torch.bfloat16), (torch.float64, torch.float32)]
)
def test_an_autoencoder_in_a_narrower_dtype_leaves_other_features_as_they_are(dtype, narrow):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Identity()), torch.rand(4, 8, dtype=dtype) + 0.1
    with (
        attach(model, {"0": identity_sae(8, narrow)}) as attached,
        attached.edit(ZeroAblate([1])),
    ):
        out = model(x)
    others = torch.arange(8) != 1
    assert torch.equal(out[:, others], x[:, others])


def test_without_error_term_the_output_is_the_reconstruction():
    torch.manual_seed(0)
    model, sae = Tokens(), random_sae(8, 32, 4)
    x = torch.randn(2, 3, 6)
    hidden = model.layer(x)
    with attach(model, {"layer": sae}, error_term=False):
        out = model(x)
    expected = model.head(sae(hidden.flatten(0, 1)).unflatten(0, (2, 3)))
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


@pytest.mark.parametrize("selection", [TopK(4), BatchTopK(4), JumpReLU(4)])
def test_every_rule_records_the_code_that_encode_gives(selection):
    torch.manual_seed(0)
    model = Tokens()
    sae = SparseAutoencoder(8, 32, selection).eval()
    x = torch.randn(2, 3, 6)
    with attach(model, {"layer": sae}) as attached, attached.record(activations=True) as recording:
        model(x)
    seen = recording["layer"]
    assert torch.equal(seen.activations, model.layer(x))
    expected = sae.encode(model.layer(x).flatten(0, 1)).to_dense().unflatten(0, (2, 3))
    assert torch.equal(seen.to_dense(), expected)
    assert torch.equal(seen.columns([5, 2]), expected[..., [5, 2]])


def test_gradients_flow_through_the_reconstruction_and_the_error_term():
    torch.manual_seed(0)
    model, sae = Tokens().double(), random_sae(8, 32, 4).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    for error_term in (True, False):
        model.zero_grad()
        sae.zero_grad()
        with (
            attach(model, {"layer": sae}, error_term=error_term) as attached,
            attached.edit(Scale(None, 2.0)),
        ):
            model(x).square().sum().backward()
        hidden = model.layer(x)
        code = sae.encode(hidden.flatten(0, 1))
        x_hat = sae.decode(code).unflatten(0, (2, 3))
        dense = code.to_dense() @ sae.W_dec * sae.scale
        new = (hidden if error_term else x_hat) + dense.unflatten(0, (2, 3))
        found = [parameter.grad for parameter in (*model.parameters(), sae.W_enc, sae.W_dec)]
        expected = torch.autograd.grad(
            model.head(new).square().sum(), [*model.parameters(), sae.W_enc, sae.W_dec]
        )
        names = [*dict(model.named_parameters()), "W_enc", "W_dec"]
        for name, one, two in zip(names, found, expected, strict=True):
            torch.testing.assert_close(one, two, msg=lambda text, name=name: f"{name}: {text}")


def test_recorded_values_are_leaves_whose_gradient_is_that_of_the_decoder():
    torch.manual_seed(0)
    model, sae = Tokens().double(), random_sae(8, 32, 4).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    with attach(model, {"layer": sae}) as attached, attached.record(gradients=True) as recording:
        model(x).sum().backward()
    code = recording["layer"].code
    expected = (sae.W_dec[code.indices] @ model.head.weight.sum(0)) * sae.scale
    torch.testing.assert_close(code.values.grad, expected)


@pytest.mark.parametrize("block", ["no_grad", "inference_mode"])
def test_gradients_are_refused_where_they_are_off(block):
    model, sae = Tokens(), random_sae(8, 32, 4)
    with (
        pytest.raises(
            LightsaeError, match=f"^codes are recorded with gradients, .* torch.{block}$"
        ),
        attach(model, {"layer": sae}) as attached,
        attached.record(gradients=True),
        getattr(torch, block)(),
    ):
        model(torch.randn(2, 3, 6))


def test_what_cannot_be_encoded_is_told_with_its_layer():
    model, x = Tokens(), torch.randn(2, 3, 6)
    x[1, 2, 0] = torch.nan
    with (
        pytest.raises(LightsaeError, match=r"^layer 'layer' gives what cannot be encoded: .* NaN"),
        attach(model, {"layer": random_sae(8, 32, 4)}) as attached,
        attached.record(),
    ):
        model(x)


def test_an_empty_batch_has_an_empty_code():
    model = Tokens()
    with (
        attach(model, {"layer": random_sae(8, 32, 4)}) as attached,
        attached.record(activations=True) as recording,
        attached.edit(Scale(None, 2.0), positions=[1], must_touch=False),
    ):
        assert model(torch.randn(0, 3, 6)).shape == (0, 3, 4)
    assert recording["layer"].to_dense().shape == (0, 3, 32)
    assert recording["layer"].columns([4, 5]).shape == (0, 3, 2)


def test_a_transcoder_reads_the_input_of_the_module_and_replaces_its_output():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 5))
    transcoder = Transcoder(8, 32, TopK(4), d_out=5, skip=True)
    with torch.no_grad():
        transcoder.W_skip.normal_()
        transcoder.target_scale.fill_(3.0)
    x = torch.randn(7, 6)
    hidden = model[0](x)
    with attach(model, {"1": transcoder}, error_term=False) as attached:
        torch.testing.assert_close(model(x), transcoder(hidden))
        code = transcoder.encode(hidden)
        latent = int(code.indices[0, 0])
        with attached.edit(ZeroAblate([latent])):
            out = model(x)
    column = code.to_dense()[:, latent : latent + 1]
    torch.testing.assert_close(out, transcoder(hidden) - column * transcoder.W_dec[latent] * 3.0)


def test_hooks_are_gone_after_the_block_an_error_or_remove():
    model, sae, x = Tokens(), random_sae(8, 32, 4), torch.randn(2, 3, 6)
    bare = model(x)
    hooks = [model._forward_hooks, model._forward_pre_hooks, model.layer._forward_hooks]
    with attach(model, {"layer": sae}):
        model(x)
    assert not any(hooks)
    with pytest.raises(RuntimeError, match="of the model"), attach(model, {"layer": sae}):
        raise RuntimeError("of the model")
    assert not any(hooks)
    attached = attach(model, {"layer": sae}, error_term=False)
    assert not torch.equal(model(x), bare)
    attached.remove()
    attached.remove()
    assert not any(hooks)
    assert torch.equal(model(x), bare)


def test_blocks_nest_and_the_inner_one_sees_what_the_outer_one_left():
    torch.manual_seed(0)
    model, x = Tokens().double(), torch.randn(2, 3, 6, dtype=torch.float64)
    with (
        attach(model, {"layer": identity_sae(8)}) as outer,
        outer.edit(Scale([0], 2.0)),
        attach(model, {"layer": identity_sae(8)}) as inner,
        inner.record() as recording,
    ):
        model(x)
    hidden = model.layer(x)
    torch.testing.assert_close(recording["layer"].columns([0])[..., 0], 2 * hidden[..., 0])


def test_other_threads_see_the_bare_model():
    torch.manual_seed(0)
    model, sae, x = Tokens(), random_sae(8, 32, 4), torch.randn(2, 3, 6)
    bare = model(x)
    found = {}

    def plain() -> None:
        found["plain"] = model(x)

    def halved() -> None:
        with (
            attach(model, {"layer": identity_sae(8, torch.float32)}) as attached,
            attached.edit(Scale(None, 0.5)),
        ):
            found["halved"] = model(x)

    with attach(model, {"layer": sae}, error_term=False):
        threads = [threading.Thread(target=each) for each in (plain, halved)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reconstructed = model(x)
    assert torch.equal(found["plain"], bare)
    torch.testing.assert_close(found["halved"], model.head(model.layer(x) / 2))
    assert not torch.equal(reconstructed, bare)


@pytest.mark.parametrize("gradients", [False, True])
def test_a_pass_repeated_for_the_backward_pass_is_edited_again_and_recorded_once(gradients):
    torch.manual_seed(0)
    model, x = Tokens(), torch.randn(2, 3, 6, requires_grad=True)

    def gradient(run) -> torch.Tensor:
        with (
            attach(model, {"layer": identity_sae(8, torch.float32)}) as attached,
            attached.edit(Scale([1], 3.0)),
            attached.record(gradients=gradients) as recording,
        ):
            run(x).square().sum().backward()
        found, x.grad = x.grad, None
        values = recording["layer"].code.values.grad
        assert (values is not None) == gradients
        return found if values is None else torch.cat([found.flatten(), values.flatten()])

    def checkpointed(x: torch.Tensor) -> torch.Tensor:
        return torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)

    torch.testing.assert_close(gradient(checkpointed), gradient(model))


def test_a_repeated_pass_has_its_tokens_first_where_the_pass_had():
    class TokensFirst(Tokens):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            turned = x.transpose(0, 1)
            run = torch.utils.checkpoint.checkpoint
            return (
                run(self.part, turned, use_reentrant=False)
                if self.training
                else (self.part(turned))
            )

        def part(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(x)).square()

    torch.manual_seed(0)
    model, x, found = TokensFirst(), torch.randn(2, 3, 6), []
    for training in (True, False):
        model.train(training).zero_grad()
        with (
            attach(model, {"layer": identity_sae(8, torch.float32)}) as attached,
            attached.edit(Scale(None, 3.0), positions=[2]),
        ):
            model(x).sum().backward()
        found.append(model.head.weight.grad.clone())
    torch.testing.assert_close(*found)


class Windows(Tokens):
    """Halves of each sample, one after the other, go through the layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        halves = x.reshape(2 * len(x), -1, 6)
        return super().forward(halves).reshape(len(x), -1)


@pytest.mark.parametrize(("tokens", "layouts"), [(6, None), (4, {"layer": "BTD"})])
def test_samples_are_refused_where_a_layer_sees_windows_of_them(tokens, layouts):
    model, x = Windows(), torch.randn(2, tokens, 6)
    sae = identity_sae(8, torch.float32)
    with attach(model, {"layer": sae}, layouts=layouts) as attached:
        with (
            pytest.raises(LightsaeError, match="sees 4 samples where the model was given 2, as"),
            attached.edit(ZeroAblate([1]), samples=[1]),
        ):
            model(x)
        with attached.edit(ZeroAblate([1]), mask=torch.tensor([False, False, True, True])):
            found = model(x)
    assert torch.equal(found[0], model(x)[0]) and not torch.equal(found[1], model(x)[1])


def test_windows_of_as_many_tokens_as_there_are_samples_are_not_taken_for_a_sequence():
    model, x = Windows(), torch.randn(2, 4, 6)
    with (
        pytest.raises(LightsaeError, match=r"gives \[4, 2, 8\] in a batch of 2: tokens come first"),
        attach(model, {"layer": random_sae(8, 16, 4)}) as attached,
        attached.record(),
    ):
        model(x)


def test_a_layer_that_does_not_run_is_told_at_the_end():
    class Half(Tokens):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(6, 8)

    model, x = Half(), torch.randn(2, 3, 6)
    with (
        pytest.raises(LightsaeError, match=r"^layer 'unused' did not run while its autoencoder"),
        attach(model, {"unused": random_sae(8, 16, 2)}),
    ):
        model(x)
    with (
        pytest.raises(LightsaeError, match=r"^layer 'layer' did not run while its codes"),
        attach(model, {"layer": random_sae(8, 16, 2)}) as attached,
        attached.record(),
    ):
        pass
    with (
        pytest.raises(LightsaeError, match=r"^layer 'layer' did not run during its edit"),
        attach(model, {"layer": random_sae(8, 16, 2)}) as attached,
        attached.edit(Scale([1], 2.0)),
    ):
        pass


def test_several_passes_of_a_recording_are_told_apart():
    model, x = Tokens(), torch.randn(2, 3, 6)
    with (
        attach(model, {"layer": random_sae(8, 16, 2)}) as attached,
        attached.record() as recording,
    ):
        model(x)
        model(x[:1])
    assert [seen.lead for seen in recording.passes("layer")] == [(2, 3), (1, 3)]
    with pytest.raises(LightsaeError, match="layer 'layer' ran 2 times"):
        recording["layer"]
    with pytest.raises(LightsaeError, match="no autoencoder at 'laye'; closest: 'layer'"):
        recording.passes("laye")


def test_what_is_given_is_checked_before_the_model_runs():
    model, sae = Tokens(), random_sae(8, 16, 2)
    with pytest.raises(LightsaeError, match="Tokens has no module 'layr'; closest: 'layer'"):
        attach(model, {"layr": sae})
    with pytest.raises(LightsaeError, match="saes is empty"):
        attach(model, {})
    with pytest.raises(LightsaeError, match="saes: 'layer' has a str, expected a SparseAuto"):
        attach(model, {"layer": "saes/mine"})
    with pytest.raises(LightsaeError, match="layouts: no autoencoder at 'head'"):
        attach(model, {"layer": sae}, layouts={"head": "BD"})
    for layout in ("NTD", "BTH", "BTCD", "BTTD", "btd", 3):
        with pytest.raises(LightsaeError, match=f"layouts: 'layer'.* {layout!r}.* expected"):
            attach(model, {"layer": sae}, layouts={"layer": layout})
    with pytest.raises(LightsaeError, match="saes is a SparseAutoencoder, expected layers and"):
        attach(model, sae)
    with pytest.raises(LightsaeError, match=r"model is a str, expected an nn\.Module"):
        attach("vit", {"layer": sae})
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_an_autoencoder_of_another_width_or_device_is_told_in_the_pass():
    model, x = Tokens(), torch.randn(2, 3, 6)
    with (
        pytest.raises(LightsaeError, match=r"layer 'layer' gives \[2, 3, 8\], the .* width 7"),
        attach(model, {"layer": random_sae(7, 16, 2)}),
    ):
        model(x)
    with (
        pytest.raises(LightsaeError, match="on cpu, its autoencoder is on meta"),
        attach(model, {"layer": random_sae(8, 16, 2).to("meta")}),
    ):
        model(x)


def test_under_autocast_the_autoencoder_works_in_its_own_dtype():
    torch.manual_seed(0)
    model, sae, x = Tokens(), random_sae(8, 32, 4), torch.randn(2, 3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        bare = model(x)
        with attach(model, {"layer": sae}) as attached, attached.record() as recording:
            assert same_bits(model(x), bare)
            with attached.edit(Scale(None, 2.0)):
                edited = model(x)
    assert recording.passes("layer")[0].code.values.dtype == torch.float32
    assert edited.dtype == bare.dtype == torch.bfloat16
    assert not torch.equal(edited, bare)
