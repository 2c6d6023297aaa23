"""Training of a transcoder: what a skip is for, resuming, ranks, checkpoints, stacks, refusals."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from lightsae.activations import ActivationBatch
from lightsae.errors import LightsaeError
from lightsae.sae import (
    AuxK,
    JumpReLU,
    L1L2Ratio,
    Matryoshka,
    MultiTopK,
    OffSupportL1,
    SparseAutoencoder,
    TopK,
    Transcoder,
    TranscoderOptions,
)
from lightsae.training import SAEAdam, SAEModule, read_checkpoint
from lightsae.training.checkpoints.saved_settings import saved_autoencoder
from lightsae.training.stacked import Member, StackedModule

from .helpers import (
    D_IN,
    D_OUT,
    D_SAE,
    finish,
    make_data,
    make_module,
    make_trainer,
    metrics,
    start,
    start_pair,
    write_config,
    write_targets,
)
from .stacked.helpers import largest_difference

SKIP = TranscoderOptions(skip=True)


def make_transcoder(**options: Any) -> SAEModule:
    defaults: dict[str, Any] = {
        "transcoder": SKIP,
        "aux_k": AuxK(k_aux=4, dead_after=16),
        "regularizer": L1L2Ratio(0.01),
        "optimizer": lambda parameters: SAEAdam(parameters, lr=0.01),
    }
    return make_module(**(defaults | options))


def fitted(run: Path, shards: Path, targets: Path, epochs: int = 2, **options: Any) -> SAEModule:
    module = make_transcoder(**options)
    trainer = make_trainer(run, max_epochs=epochs)
    trainer.fit(module, make_data(shards, targets=str(targets)))
    return module


def test_scales_and_centres_are_those_of_the_training_split(
    shards: Path, targets: Path, tmp_path: Path
) -> None:
    data = make_data(shards, targets=str(targets))
    module = make_transcoder()
    make_trainer(tmp_path, max_steps=0).fit(module, data)
    expected = Transcoder(D_IN, D_SAE, TopK(3), d_out=D_OUT)
    data.setup()
    expected.initialize_(data.training_sample(), targets=data.training_targets())
    for name in ("scale", "target_scale", "b_in", "b_dec"):
        assert torch.equal(getattr(module.sae, name), getattr(expected, name)), name


def test_r2_is_of_raw_targets(shards: Path, targets: Path, tmp_path: Path) -> None:
    module = fitted(tmp_path, shards, targets)
    data = make_data(shards, targets=str(targets))
    [tested] = make_trainer(tmp_path / "test").test(module, data, verbose=False)
    batches = list(data.test_dataloader())
    x = torch.cat([batch.activations for batch in batches])
    y = torch.cat([batch.targets for batch in batches])
    with torch.no_grad():
        missed, spread = y - module.sae(x), y - y.mean(dim=0)
    r2 = 1 - float(missed.square().sum() / spread.square().sum())
    assert tested["test/r2"] == pytest.approx(r2, rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"reconstruction": Matryoshka([0.25, 0.5])},
        {"reconstruction": MultiTopK(multiple=2), "regularizer": OffSupportL1(0.01)},
        {"selection": JumpReLU(3)},
        {"normalization": "layer_norm"},
    ],
    ids=["matryoshka", "multi-topk", "jumprelu", "layer_norm"],
)
def test_losses_and_rules_of_autoencoders_train_it(
    options: dict[str, Any], shards: Path, targets: Path, tmp_path: Path
) -> None:
    fitted(tmp_path, shards, targets, 4, **options)
    found = [row["val/r2"] for row in metrics(tmp_path) if "val/r2" in row]
    assert found[-1] > found[0] + 0.05


class Stop(Callback):
    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 13:
            raise RuntimeError("stopped")


def test_a_run_that_was_stopped_ends_as_if_it_never_had_been(
    shards: Path, targets: Path, tmp_path: Path
) -> None:
    whole = fitted(tmp_path / "whole", shards, targets)
    run = tmp_path / "stopped"
    data = make_data(shards, targets=str(targets))
    with pytest.raises(RuntimeError, match="stopped"):
        make_trainer(run, every=3, callbacks=[Stop()]).fit(make_transcoder(), data)
    resumed = make_transcoder(seed=9)
    data = make_data(shards, targets=str(targets))
    make_trainer(run, every=3).fit(resumed, data, ckpt_path=str(run / "last.ckpt"))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    assert metrics(run) == metrics(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_are_one_with_batches_twice_as_large(
    shards: Path, targets: Path, tmp_path: Path
) -> None:
    splits = {"val_fraction": 0.155, "test_fraction": 0.1}
    rows = make_data(shards, **splits).rows("train")
    assert rows % 2 == 1  # one process has a row more than the other
    configs = [
        write_config(
            tmp_path / f"{processes}.yaml", shards,
            trainer__precision="64-true", trainer__max_epochs=6,
            model__init_args__transcoder={"skip": True},
            data__init_args__targets=str(targets),
            data__init_args__batch_size=-(-rows // processes),
            **{f"data__init_args__{name}": share for name, share in splits.items()},
        )
        for processes in (1, 2)
    ]  # fmt: skip
    one = start("fit", "--config", configs[0], "--run_dir", tmp_path / "1")
    two = start_pair("fit", "--config", configs[1], "--run_dir", tmp_path / "2")
    assert finish(one, *two) == [0, 0, 0]
    first, second = (
        read_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt")["state_dict"]
        for run in ("1", "2")
    )
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-10, atol=1e-12, msg=name)
    assert first["sae.W_skip"].any()


def test_a_checkpoint_builds_the_module_and_its_transcoder(
    shards: Path, targets: Path, tmp_path: Path
) -> None:
    module = fitted(tmp_path, shards, targets)
    path = tmp_path / "last.ckpt"
    found = SAEModule.load_from_checkpoint(path)
    assert found.transcoder == TranscoderOptions(skip=True, d_out=D_OUT)
    alone = saved_autoencoder(read_checkpoint(path), path)
    module.sae.save(tmp_path / "sae")
    for sae in (found.sae, alone, SparseAutoencoder.load(tmp_path / "sae")):
        assert type(sae) is Transcoder
        for name, tensor in module.sae.state_dict().items():
            assert torch.equal(sae.state_dict()[name], tensor), name


def test_a_checkpoint_without_a_skip_is_of_another_model(
    shards: Path, targets: Path, tmp_path: Path
) -> None:
    fitted(tmp_path, shards, targets, transcoder=TranscoderOptions())
    data = make_data(shards, targets=str(targets))
    with pytest.raises(LightsaeError, match=r"of another model: it has no sae\.W_skip"):
        make_trainer(tmp_path).fit(make_transcoder(), data, ckpt_path=str(tmp_path / "last.ckpt"))


def test_other_targets_do_not_continue_a_run(shards: Path, targets: Path, tmp_path: Path) -> None:
    fitted(tmp_path, shards, targets, 1)
    again = write_targets(tmp_path / "again", shards, seed=2)
    data = make_data(shards, targets=str(again))
    with pytest.raises(LightsaeError, match=r"trained on other shards \(targets digest"):
        make_trainer(tmp_path).fit(make_transcoder(), data, ckpt_path=str(tmp_path / "last.ckpt"))


def test_members_of_a_stack_take_turns_and_end_as_runs_of_their_own(
    shards: Path, targets: Path, tmp_path: Path
) -> None:
    def make(number: int) -> SAEModule:
        regularizer = None if number else L1L2Ratio(0.01)
        return SAEModule(
            D_SAE, TopK(3), regularizer, AuxK(k_aux=4, dead_after=16), transcoder=SKIP,
            optimizer=lambda parameters: SAEAdam(parameters, lr=0.01),
        )  # fmt: skip

    options = {"precision": "64-true"}
    stacked = StackedModule(
        [Member.made(str(n), 10 + n, lambda n=n: make(n)) for n in range(2)],  # type: ignore[misc]
        probes={"reg2": L1L2Ratio(1.0)},
    )
    data = make_data(shards, targets=str(targets))
    trainer = make_trainer(tmp_path, logger=False, **options)
    trainer.fit(stacked, data)
    trainer.validate(stacked, data, verbose=False)
    for number, member in enumerate(stacked.members):
        torch.manual_seed(10 + number)
        alone = make(number)
        data = make_data(shards, targets=str(targets))
        make_trainer(tmp_path / str(number), **options).fit(alone, data)
        assert member.failure is None
        assert largest_difference(alone, member.module) < 1e-10
        assert torch.equal(alone.sae.b_in, member.module.sae.b_in)
        assert member.validation["penalty/reg2"] > 1


def batches_of(x: Tensor, y: Tensor | None) -> Iterator[ActivationBatch]:
    for start_of in range(0, len(x), 16):
        part = slice(start_of, start_of + 16)
        unknown = torch.full((len(x[part]),), -1)
        yield ActivationBatch(
            x[part], unknown, unknown, None, targets=None if y is None else y[part]
        )


def loader_of(d_out: int | None) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, D_IN, generator=generator)
    y = None if d_out is None else torch.randn(96, d_out, generator=generator)
    return DataLoader(list(batches_of(x, y)), batch_size=None)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_any_loader_may_give_targets(tmp_path: Path) -> None:
    module = make_transcoder()
    with pytest.warns(UserWarning, match="come from the first 96 rows of the training loader"):
        make_trainer(tmp_path).fit(module, loader_of(4))
    assert isinstance(module.sae, Transcoder)
    assert module.sae.d_out == 4
    assert module.sae.target_scale != 1


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_a_loader_without_targets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="the data have no targets, which tell the d_out"):
        make_trainer(tmp_path).fit(make_transcoder(), loader_of(None))
    with pytest.raises(LightsaeError, match="a batch has no targets, which a transcoder"):
        made = make_transcoder(d_in=D_IN, transcoder=TranscoderOptions(d_out=4))
        make_trainer(tmp_path).fit(made, loader_of(None))
    with pytest.raises(LightsaeError, match="rows of width 3, the autoencoder has d_out = 4"):
        made = make_transcoder(d_in=D_IN, transcoder=TranscoderOptions(d_out=4))
        make_trainer(tmp_path).fit(made, loader_of(3))


def test_data_and_model_have_targets_or_neither_has(
    shards: Path, targets: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path)
    with pytest.raises(LightsaeError, match=rf"{shards}: has no targets, which model\.transcoder"):
        trainer.fit(make_transcoder(), make_data(shards))
    with pytest.raises(LightsaeError, match=rf"{shards}: comes with targets, which only"):
        trainer.fit(make_module(), make_data(shards, targets=str(targets)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transcoder": TranscoderOptions(d_out=9)}, "d_out = 9, the targets in .* have d_out = 5"),
        ({"d_in": 7}, "d_in = 7, the activations in .* have d_in = 6"),
        ({"d_in": 6, "transcoder": TranscoderOptions(d_out=9)}, "d_out = 9, the targets"),
    ],
    ids=["d_out", "d_in", "built"],
)
def test_widths_are_those_of_the_data(
    options: dict[str, Any], message: str, shards: Path, targets: Path, tmp_path: Path
) -> None:
    with pytest.raises(LightsaeError, match=message):
        data = make_data(shards, targets=str(targets))
        make_trainer(tmp_path).fit(make_transcoder(**options), data)


def test_a_trained_one_keeps_its_scales(shards: Path, targets: Path, tmp_path: Path) -> None:
    module = fitted(tmp_path, shards, targets, 1)
    centre = module.sae.b_dec.detach().clone()
    data = make_data(shards, targets=str(targets))
    make_trainer(tmp_path / "more", max_steps=0).fit(module, data)
    assert torch.equal(module.sae.b_dec, centre)
