"""A module that trains with an anchor: on which steps, with what weight, and what it resumes."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import TranscoderOptions, VocabularyAnchor, objective, vocabulary_anchor
from lightsae.training import SAEAdam, SAEModule, read_checkpoint
from lightsae.training.stacked import Member, StackedModule

from ..helpers import D_IN, D_OUT, make_data, make_module, make_trainer, metrics
from ..stacked.helpers import largest_difference, maker, train_apart, train_stacked

ANCHORED = ("train/anchor", "train/nearest_cosine")


def vectors(count: int = 9, width: int = D_IN) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def vocabulary(tmp_path: Path) -> str:
    path = tmp_path / "words.safetensors"
    save_file({"vectors": vectors()}, path)
    return str(path)


def trained(shards: Path, run: Path, module: SAEModule, **options: Any) -> SAEModule:
    checkpoint = run / "last.ckpt"
    going_on = {"ckpt_path": checkpoint, "weights_only": True} if checkpoint.exists() else {}
    make_trainer(run, limit_val_batches=0, **options).fit(module, make_data(shards), **going_on)
    return module


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def test_it_is_computed_at_every_third_step_and_logged_from_then_on(
    shards: Path, tmp_path: Path
) -> None:
    anchor = VocabularyAnchor(0.3, vectors(), every=3, reduction="logsumexp", temperature=0.1)
    module = trained(shards, tmp_path, make_module(anchor=anchor), max_epochs=2)
    rows = metrics(tmp_path)
    assert not any(name in row for row in rows[:2] for name in ANCHORED)
    values = [[row[name] for name in ANCHORED] for row in rows[2:]]
    assert all(value < nearest <= 1 for value, nearest in values)
    renewed = [step for step in range(1, len(values)) if values[step] != values[step - 1]]
    assert renewed == [3, 6, 9, 12, 15]
    for step, row in enumerate(rows):
        anchored = 0.9 * row["train/anchor"] if step % 3 == 2 else 0
        assert row["train/loss"] == pytest.approx(row["train/reconstruction"] - anchored, rel=1e-5)
    assert not any("anchor" in name for name in module.state_dict())


def test_a_step_is_that_of_the_loss_with_lambda_times_every(shards: Path, tmp_path: Path) -> None:
    anchor = VocabularyAnchor(0.3, vectors(), every=2, weight_warmup=4)
    module = make_module(d_in=D_IN, anchor=anchor, optimizer=sgd)
    states: list[dict[str, Tensor]] = []
    gradients: list[Tensor] = []
    seen: list[Tensor] = []
    step = module.training_step

    def watched(batch: Any, batch_idx: int) -> Tensor:
        states.append(deepcopy(module.sae.state_dict()))
        seen.append(batch.activations)
        return step(batch, batch_idx)

    module.training_step = watched  # type: ignore[method-assign]
    module.on_after_backward = lambda: gradients.append(module.sae.W_dec.grad.clone())  # type: ignore[method-assign, union-attr]
    trained(shards, tmp_path, module, max_steps=4, max_epochs=-1)
    for number, weight in enumerate([None, 0.3 * 1 / 4 * 2, None, 0.3 * 3 / 4 * 2]):
        module.sae.load_state_dict(states[number])
        loss = objective(module.sae, module.sae.normalize(seen[number]).x).loss
        if weight is not None:
            loss = loss - weight * vocabulary_anchor(module.sae.W_dec, vectors())
        (expected,) = torch.autograd.grad(loss, module.sae.W_dec)
        torch.testing.assert_close(gradients[number], expected, msg=f"step {number}")


def test_latents_come_nearer_to_the_vocabulary(shards: Path, tmp_path: Path) -> None:
    nearest = []
    for weight in (0.0, 3.0):
        run, anchor = tmp_path / str(weight), VocabularyAnchor(weight, vectors())
        module = make_module(anchor=anchor, optimizer=lambda p: SAEAdam(p, lr=0.01))
        trained(shards, run, module, max_epochs=2)
        nearest.append(metrics(run)[-1]["train/nearest_cosine"])
    assert nearest[1] > nearest[0] + 0.05


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 2},
    "clipped": {"gradient_clip_val": 0.01},
}


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_our_adam_takes_its_gradient_of_every_latent_as_torchs_does(
    options: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    found = {}
    for optimizer in (torch.optim.Adam, SAEAdam):
        anchor = VocabularyAnchor(0.5, vectors(), every=2, reduction="softmax")
        module = make_module(anchor=anchor, optimizer=lambda p, o=optimizer: o(p, lr=0.01))
        run = tmp_path / optimizer.__name__
        found[optimizer] = trained(shards, run, module, precision="64-true", **options)
    assert largest_difference(*found.values()) < 1e-10


def test_micro_batches_of_a_step_have_it_once_together(shards: Path, tmp_path: Path) -> None:
    """Without anything else that a batch shares, two halves are a whole."""
    found = []
    for size, accumulated in ((16, 1), (8, 2)):
        module = make_module(optimizer=sgd, anchor=VocabularyAnchor(2.0, vectors(), every=2))
        trainer = make_trainer(
            tmp_path / str(size), max_epochs=1, limit_val_batches=0, precision="64-true",
            accumulate_grad_batches=accumulated,
        )  # fmt: skip
        trainer.fit(module, make_data(shards, batch_size=size))
        found.append(module)
    assert largest_difference(*found) < 1e-12


def test_validation_leaves_it_out_and_evaluation_needs_no_vocabulary(
    shards: Path, vocabulary: str, tmp_path: Path
) -> None:
    module = make_module(anchor=VocabularyAnchor(0.3, vocabulary))
    make_trainer(tmp_path, max_epochs=1).fit(module, make_data(shards))
    Path(vocabulary).unlink()
    found = SAEModule.load_from_checkpoint(tmp_path / "last.ckpt")
    assert found.anchor is not None and module.anchor is not None
    assert found.anchor.settings() == module.anchor.settings()
    [scores] = make_trainer(tmp_path / "again").test(found, make_data(shards))
    assert scores["test/loss"] == pytest.approx(scores["test/reconstruction"])
    with pytest.raises(LightsaeError, match=r"words.safetensors: no such vocabulary"):
        trained(shards, tmp_path / "fit", make_module(anchor=VocabularyAnchor(0.3, vocabulary)))


@pytest.mark.parametrize("transcodes", [False, True])
def test_a_vocabulary_of_another_width_is_refused_before_training(
    transcodes: bool, shards: Path, targets: Path, tmp_path: Path
) -> None:
    wrong, right = (D_IN, D_OUT) if transcodes else (D_OUT, D_IN)
    options = {"transcoder": TranscoderOptions()} if transcodes else {}
    module = make_module(anchor=VocabularyAnchor(0.3, vectors(width=wrong)), **options)
    data = make_data(shards, **({"targets": str(targets)} if transcodes else {}))
    message = f"vectors have width {wrong}, decoder rows have {right}"
    with pytest.raises(LightsaeError, match=message):
        make_trainer(tmp_path).fit(module, data)
    assert not metrics(tmp_path)


def test_a_matrix_is_no_part_of_a_checkpoint(shards: Path, tmp_path: Path) -> None:
    matrix = vectors(5000)
    module = trained(shards, tmp_path, make_module(anchor=VocabularyAnchor(0.3, matrix)))
    path = tmp_path / "last.ckpt"
    assert path.stat().st_size < matrix.nbytes
    kept = read_checkpoint(path)["anchor"]
    assert module.anchor is not None
    assert kept == {**module.anchor.settings(), "vocabulary": None, "digest": module.anchor.digest}
    with pytest.warns(UserWarning, match="an anchor to a matrix, which it does not hold"):
        assert SAEModule.load_from_checkpoint(path).anchor is None
    given = SAEModule.load_from_checkpoint(path, anchor=VocabularyAnchor(0.1, matrix))
    assert given.anchor is not None and given.anchor.weight == 0.1


@pytest.mark.filterwarnings("ignore:VocabularyAnchor. weight_warmup = 12 is longer than the run")
def test_a_run_goes_on_with_the_same_vocabulary_alone_wherever_it_lies(
    shards: Path, vocabulary: str, tmp_path: Path
) -> None:
    def anchored(where: str) -> SAEModule:
        return make_module(anchor=VocabularyAnchor(0.3, where, every=3, weight_warmup=12))

    whole = trained(shards, tmp_path / "whole", anchored(vocabulary))
    trained(shards, tmp_path / "cut", anchored(vocabulary), max_steps=7)
    moved = Path(vocabulary).rename(tmp_path / "moved.safetensors")
    save_file({"vectors": vectors() + 1}, tmp_path / "other.safetensors")
    with pytest.raises(LightsaeError, match=r"with another vocabulary than .*other.safetensors"):
        trained(shards, tmp_path / "cut", anchored(str(tmp_path / "other.safetensors")))
    gone_on = trained(shards, tmp_path / "cut", anchored(str(moved)))
    assert largest_difference(whole, gone_on) == 0
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


def test_a_run_that_is_too_short_for_it_says_so(shards: Path, tmp_path: Path) -> None:
    anchor = VocabularyAnchor(0.3, vectors(), every=11)
    with pytest.warns(UserWarning, match="every = 11 is longer than the run, which has 10"):
        trained(shards, tmp_path, make_module(anchor=anchor), max_epochs=1)


def test_members_of_a_stack_with_an_anchor_take_turns_and_agree(
    shards: Path, tmp_path: Path
) -> None:
    anchors = [VocabularyAnchor(0.5, vectors(), every=4), None, VocabularyAnchor(0.1, vectors())]
    makes = [maker(None, 0.01, anchor=anchor) for anchor in anchors]
    apart = train_apart(makes, shards, tmp_path / "apart", precision="64-true")
    # Stopped once, and gone on with.
    train_stacked(makes, shards, tmp_path / "stacked", precision="64-true", max_steps=13)
    stacked, _ = train_stacked(makes, shards, tmp_path / "stacked", precision="64-true")
    for number, (one, member) in enumerate(zip(apart, stacked.members, strict=True)):
        assert largest_difference(one, member.module) < 1e-10
        mine, theirs = (metrics(tmp_path / kind / str(number)) for kind in ("apart", "stacked"))
        for row, other in zip(mine, theirs, strict=True):
            assert other == pytest.approx(row, abs=1e-10, rel=1e-10)


def test_a_stack_goes_on_with_the_vocabularies_it_was_begun_with(
    shards: Path, tmp_path: Path
) -> None:
    first, other = (
        [maker(None, 0.01), maker(None, 0.01, anchor=VocabularyAnchor(0.1, words))]
        for words in (vectors(), vectors() + 1)
    )
    train_stacked(first, shards, tmp_path, max_steps=3)
    with pytest.raises(LightsaeError, match=r"^1 was trained with another vocabulary than the one"):
        train_stacked(other, shards, tmp_path)


def test_what_an_earlier_run_came_to_is_not_logged(shards: Path, tmp_path: Path) -> None:
    anchor = VocabularyAnchor(0.3, vectors())
    trained(shards, tmp_path / "first", make_module(anchor=anchor), max_epochs=1)
    path = tmp_path / "first" / "last.ckpt"
    plain = SAEModule.load_from_checkpoint(path, anchor=None)
    rare = SAEModule.load_from_checkpoint(path, anchor=VocabularyAnchor(0.3, vectors(), every=4))
    for name, module, before in (("plain", plain, 10), ("rare", rare, 3)):
        trained(shards, tmp_path / name, module, max_epochs=1)
        logged = [ANCHORED[0] in row for row in metrics(tmp_path / name)]
        assert logged == [False] * before + [True] * (10 - before)


def test_a_member_with_a_vocabulary_of_another_width_is_refused(
    shards: Path, tmp_path: Path
) -> None:
    makes = [maker(None, 0.01), maker(None, 0.01, anchor=VocabularyAnchor(0.1, torch.eye(4)))]
    stacked = StackedModule([Member.made(str(n), n, make) for n, make in enumerate(makes)])
    with pytest.raises(LightsaeError, match="vectors have width 4, decoder rows have 6"):
        make_trainer(tmp_path, logger=False).fit(stacked, make_data(shards))


def test_a_copy_of_a_module_shares_the_vocabulary() -> None:
    module = make_module(anchor=VocabularyAnchor(0.3, vectors()))
    assert deepcopy(module).anchor is module.anchor
