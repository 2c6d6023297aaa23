"""World, model, autoencoder, and steering in both directions."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from lightsae.interventions.examples.dated_world.training import Training, activations, trained
from lightsae.interventions.examples.dated_world.world import Mixture, World
from lightsae.interventions.examples.sae_fitting import fit_sae
from lightsae.interventions.examples.same_experiment import require_same
from lightsae.interventions.look_ahead.both_directions import steer_both
from lightsae.interventions.look_ahead.questions import write_questions
from lightsae.interventions.look_ahead.task import Direction, LookAheadTask
from lightsae.interventions.steering.options import SteeringOptions
from lightsae.interventions.steering.result import SteeringResult

_SENTENCES_FOR_SAE = 1


def _grid() -> SteeringOptions:
    return SteeringOptions(strengths=[0.25, 0.5, 1, 2, 3, 5], counts=[1, 4, 16])


@dataclass(frozen=True)
class Experiment:
    """Sizes of the experiment.

    Attributes:
        entities: Of the world.
        years: Of the world, 4 or more.
        mixture: What is written about it.
        training: Of the language model.
        block: Whose output the autoencoder is fitted to.
        sentences: Whose activations are fitted.
        d_sae: Size of the dictionary.
        k: Latents per token.
        epochs: Passes over the activations.
        steering: Grid and controls.
    """

    entities: int = 32
    years: int = 12
    mixture: Mixture = field(default_factory=Mixture)
    training: Training = field(default_factory=Training)
    block: int = 1
    sentences: int = 4000
    d_sae: int = 512
    k: int = 12
    epochs: int = 5
    steering: SteeringOptions = field(default_factory=_grid)

    def run(self, folder: Path, seed: int = 0) -> dict[Direction, SteeringResult]:
        """Train what is not in the folder yet, and steer.

        Args:
            folder: Gets `experiment.json`, `model`, `shards`, `sae`, `questions.jsonl`, `amplify`
                and `suppress`.
            seed: Of everything.

        Returns:
            What each direction came to.

        Raises:
            LightsaeError: If the folder holds an experiment of another seed or size.
        """
        world = World(self.entities, self.years, seed)
        folder.mkdir(parents=True, exist_ok=True)
        require_same(folder, {"seed": seed, **asdict(self)})
        model = trained(world, folder / "model", self.training, self.mixture, seed)
        written = world.sentences(self.sentences, self.mixture, seed=_SENTENCES_FOR_SAE)
        rows, sentence = activations(model, self.block, written)
        fit_sae(
            rows, folder, d_sae=self.d_sae, k=self.k, epochs=self.epochs, seed=seed,
            samples=sentence,
        )  # fmt: skip
        write_questions(folder / "questions.jsonl", world.questions())
        task = LookAheadTask(
            str(folder / "model"), {f"model.layers.{self.block}": str(folder / "sae")},
            str(folder / "questions.jsonl"), accuracy_fall=0.05, batch_size=512, seed=seed,
        )  # fmt: skip
        return steer_both(task, folder, self.steering)
