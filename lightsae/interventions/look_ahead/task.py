"""`LookAheadTask`: steering a language model away from facts of later years."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import xxhash

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.interventions.finding.collect_features import collect_features
from lightsae.interventions.finding.contrast import contrast
from lightsae.interventions.finding.latent_ranking import LatentRanking, ranking_of_contrast
from lightsae.interventions.finding.layer_features import LayerFeatures
from lightsae.interventions.look_ahead.language_model import LanguageModel
from lightsae.interventions.look_ahead.leak_rate import (
    AnswerKind,
    answer_kind,
    answers,
    rate,
    share,
)
from lightsae.interventions.look_ahead.matched_pairs import contrast_pairs
from lightsae.interventions.look_ahead.questions import (
    DatedQuestion,
    Questions,
    QuestionSplit,
    UndatedQuestion,
    read_questions,
)
from lightsae.interventions.pretrained import config_hash
from lightsae.interventions.steering.task import (
    Batch,
    Examples,
    GuardLimit,
    Measured,
    Split,
    SteeringTask,
)
from lightsae.sae import SparseAutoencoder

Direction = Literal["amplify", "suppress"]
LEAK, AWARE = "leak rate", "as of then"
UNCHANGED, UNDATED, LOSS = "unchanged since", "undated", "loss"


class LookAheadTask(SteeringTask):
    """Fewer answers from later years, by one of two sets of latents (arXiv 2606.27199).

    Latents are contrasted between questions that the bare model answered as of then (label 0) and
    questions that it answered by later facts (label 1), at the place where the answer is read off;
    both sets have the same years and attributes, see `contrast_pairs`. "amplify" steers those that
    go with time-aware answers, "suppress" those that go with later facts; both steer toward label
    0, which is the default of `SteeringOptions`, and more strength is more of it. Ours: pairs,
    place, the effect that ranks, and the guards: the shares of right answers to questions that can
    leak ("as of then"), to dated ones whose answer is the same to the end ("unchanged since") and
    to undated ones, and the loss on texts; each is there if its questions are.

    Args:
        model: Name on the Hub, or folder, of a causal language model of transformers.
        saes: Of each layer, such as `model.layers.1`, the folder or repository of its autoencoder.
        questions: JSONL file; see `read_questions`. In the splits "choice" and "test" as in "find"
            there are dated questions with later answers, each in one split. Those about one
            attribute of one entity are one sample of a metric; the leak rate needs six.
        direction: "amplify" time-aware latents or "suppress" look-ahead ones.
        accuracy_fall: How much a guard that is an accuracy may fall.
        loss_rise: How much the loss may rise, in nats.
        batch_size: Texts per pass.
        device: Where the model runs.
        seed: Of the pairs.

    Raises:
        LightsaeError: If one of them cannot be.
        MissingExtraError: If transformers is not installed.
    """

    target, target_falls = LEAK, True

    def __init__(
        self,
        model: str,
        saes: Mapping[str, str],
        questions: str,
        *,
        direction: Direction = "amplify",
        accuracy_fall: float = 0.02,
        loss_rise: float = 0.05,
        batch_size: int = 64,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        _require_direction(direction)
        self.direction, self.seed = direction, seed
        file = Path(expanded(questions))
        self.questions = _checked(read_questions(file), questions)
        self._settings = {
            "model": model, "saes": dict(saes), "questions": questions,
            "questions_hash": xxhash.xxh3_64_hexdigest(file.read_bytes()),
            "accuracy_fall": accuracy_fall, "loss_rise": loss_rise, "seed": seed,
        }  # fmt: skip
        self.guards = _guards(self.questions["test"], accuracy_fall, loss_rise)
        self.language_model = LanguageModel.load(
            expanded(model), batch_size=batch_size, device=device
        )
        self.model = self.language_model.model
        self.saes = {
            layer: SparseAutoencoder.from_pretrained(expanded(folder)).eval().to(device)
            for layer, folder in saes.items()
        }
        self.language_model.require_known(_prompts(self.questions))

    def about(self) -> dict[str, object]:
        """What the steering is of, for its settings."""
        return {
            "class_path": f"{__name__}.{type(self).__name__}",
            **self._settings,
            "direction": self.direction,
        }

    def hashes(self) -> dict[str, str]:
        """Of the questions, the tokenizer, and the model's configuration."""
        return {
            "questions": str(self._settings["questions_hash"]),
            "tokenizer": self.language_model.tokenizer_hash(),
            "config": config_hash(self.model),
        }

    def toward(self, direction: Direction) -> "LookAheadTask":
        """The same task by the other latents; models and questions are shared.

        Args:
            direction: "amplify" or "suppress".
        """
        _require_direction(direction)
        found = copy.copy(self)
        found.direction = direction
        return found

    def examples(self) -> Examples:
        """The contrast pairs of the split "find": label 1 for those answered by later facts."""
        pairs = contrast_pairs(self.questions["find"].leakable, self._kinds("find"), seed=self.seed)
        prompts = [question.prompt for pair in pairs for question in pair]
        labels = np.tile(np.array([0, 1], np.int64), len(pairs))
        return Examples(list(self.language_model.batches(prompts)), labels)

    def features(self, batches: Iterable[Batch]) -> Mapping[str, LayerFeatures]:
        """Codes and activations at the last token of each prompt."""
        given = list(batches)
        found = collect_features(self.model, self.saes, given, pooling="none", forward=self.forward)
        rows = np.array(_answer_rows(given))
        return {
            layer: LayerFeatures(each.codes[rows], each.activations[rows])
            for layer, each in found.items()
        }

    def ranking(self, features: LayerFeatures, labels: Array) -> LatentRanking:
        """Latents that go with time-aware answers, or with later facts, by |effect| of a contrast.

        Args:
            features: Of the pairs.
            labels: 1 where the answer was a later fact.
        """
        ranking = ranking_of_contrast(contrast(features.codes, labels), features.codes)
        wanted = ranking.signs == (-1 if self.direction == "amplify" else 1)
        return LatentRanking(*(part[wanted] for part in ranking))

    def measure(self, split: Split) -> dict[str, Measured]:
        """Leak rate and guards on a split, under whatever hooks are attached."""
        here = self.questions[split]
        kinds = self._kinds(split)
        about = [each.subject for each in here.leakable]
        found = {LEAK: share(kinds, "later", about), AWARE: share(kinds, "as of then", about)}
        if UNCHANGED in self.guards:
            found[UNCHANGED] = self._accuracy(here.unchanged)
        if UNDATED in self.guards:
            found[UNDATED] = self._accuracy(here.undated)
        if LOSS in self.guards:
            found[LOSS] = self.language_model.loss(here.texts)
        return found

    def _kinds(self, split: QuestionSplit) -> list[AnswerKind]:
        """What the answers to the leakable questions of a split are."""
        asked = self.questions[split].leakable
        return [answer_kind(*each) for each in zip(asked, self._answers(asked), strict=True)]

    def _accuracy(self, asked: Sequence[DatedQuestion] | Sequence[UndatedQuestion]) -> Measured:
        texts = self._answers(asked)
        wanted = [each.answer for each in asked]
        hits = [answers(*each) for each in zip(texts, wanted, strict=True)]
        about = [each.subject if isinstance(each, DatedQuestion) else "" for each in asked]
        return rate(hits, about)

    def _answers(self, asked: Sequence[DatedQuestion] | Sequence[UndatedQuestion]) -> list[str]:
        return self.language_model.answers([each.prompt for each in asked], self._tokens)

    @cached_property
    def _tokens(self) -> int:
        """As many tokens as the longest answer of the file has."""
        found: list[str] = []
        for questions in self.questions.values():
            found += [each.answer for each in questions.undated]
            for dated in questions.dated:
                found += [dated.answer, *dated.later]
        return self.language_model.tokens_of(found)


def _answer_rows(batches: Iterable[Batch]) -> list[int]:
    """Of each prompt the row of its last token, where all places that are no padding have a row."""
    lengths: list[int] = []
    for batch in batches:
        assert isinstance(batch, Mapping)
        lengths += batch["attention_mask"].sum(dim=1).tolist()
    return [int(end) - 1 for end in np.cumsum(lengths)]


def _require_direction(direction: str) -> None:
    if direction not in get_args(Direction):
        known = ", ".join(get_args(Direction))
        raise LightsaeError(f"direction is {direction!r}, expected one of {known}")


def _checked(splits: dict[QuestionSplit, Questions], path: str) -> dict[QuestionSplit, Questions]:
    """Questions of which every split can leak, and guards that are in both splits or in neither."""
    home: dict[str, str] = {}
    for split, questions in splits.items():
        if not questions.leakable:
            raise LightsaeError(f"{path}: split {split!r} has no dated question with later answers")
        for prompt in (each.prompt for each in questions.leakable):
            if home.setdefault(prompt, split) != split:
                raise LightsaeError(
                    f"{path}: prompt {prompt!r} is in splits {home[prompt]!r} and {split!r}, "
                    "expected one"
                )
    choice, test = (_guard_samples(splits[split]) for split in ("choice", "test"))
    for name in choice:
        if bool(choice[name]) != bool(test[name]):
            here, lacks = ("choice", "test") if choice[name] else ("test", "choice")
            raise LightsaeError(
                f"{path}: split {here!r} has samples of {name!r}, {lacks!r} has none"
            )
    return splits


def _prompts(splits: Mapping[QuestionSplit, Questions]) -> Iterator[str]:
    for questions in splits.values():
        yield from (each.prompt for each in questions.dated)
        yield from (each.prompt for each in questions.undated)


def _guard_samples(questions: Questions) -> dict[str, int]:
    """How many samples each guard has."""
    return {
        AWARE: len(questions.leakable),
        UNCHANGED: len(questions.unchanged),
        UNDATED: len(questions.undated),
        LOSS: len(questions.texts),
    }


def _guards(questions: Questions, accuracy_fall: float, loss_rise: float) -> dict[str, GuardLimit]:
    """The limits of those guards that have samples."""
    return {
        name: GuardLimit(rise=loss_rise) if name == LOSS else GuardLimit(fall=accuracy_fall)
        for name, samples in _guard_samples(questions).items()
        if samples
    }
