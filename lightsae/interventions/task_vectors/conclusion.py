"""What an experiment on a task vector shows, by rule."""

from typing import NamedTuple

from lightsae.interventions.task_vectors.experiment import (
    BASE,
    CHOSEN,
    PROJECTED,
    RANDOM_LAYERS,
    RANDOM_SPAN,
    TUNED,
)
from lightsae.interventions.task_vectors.proportions import ProportionTest, two_proportion_z
from lightsae.interventions.task_vectors.result import Arm, TaskVectorResult

ALPHA = 0.05


class Finding(NamedTuple):
    """A claim and whether the figures bear it out.

    Attributes:
        claim: What was to be shown.
        holds: Whether it was.
        figures: By which the rule decided.
    """

    claim: str
    holds: bool
    figures: str


def against(result: TaskVectorResult, name: str, other: str, samples: str) -> ProportionTest:
    """z-test of an arm of one draw against another.

    Args:
        result: The experiment.
        name: The arm.
        other: What it is compared with.
        samples: On which set.
    """
    arms = result.arm(name), result.arm(other)
    first, second = (arm.scores[samples][0] for arm in arms)
    return two_proportion_z(first, second)


def placement(arm: Arm, control: Arm, samples: str) -> float:
    """One-sided p-value of an arm among random ones: share of all that do as well or better.

    Args:
        arm: Of one draw.
        control: Of many.
        samples: On which set.
    """
    own = arm.share(samples)
    draws = control.scores[samples]
    return (1 + sum(each.share >= own for each in draws)) / (1 + len(draws))


def conclude(result: TaskVectorResult) -> list[Finding]:
    """The claims of arXiv 2605.28649, each decided at the 5% level. Ours: the rules.

    - fine-tuning helps, the scalpel does not, the stethoscope does: z-test against the base on the
      task, two-sided, p below 5% and upwards;
    - latents' span holds more than chance: in more than half of the layers the energy kept is above
      the 97.5% quantile of random subspaces;
    - specificity chooses better than chance: the chosen layers are among the best 5% of random
      sets of as many, themselves included;
    - nothing is lost elsewhere: in no other set is the z-test significant downwards;
    - the last claim is their conjunction: fine-tuning helps, the scalpel does not, the stethoscope
      does and chooses better than chance, and loses nothing elsewhere.

    The z-test is the paper's and takes the answers as independent; beside it the figures have
    McNemar's exact test, which takes the two answers to each sample as a pair.

    Args:
        result: The experiment.

    Returns:
        Findings in that order.
    """
    tuned = _improves(result, TUNED, "Fine-tuning helps on the task")
    scalpel = _improves(result, PROJECTED, "Scalpel: the projected vector helps on the task")
    stethoscope = _improves(
        result, CHOSEN, "Stethoscope: the raw vector in the chosen layers helps on the task"
    )
    span = _placed(result, PROJECTED, RANDOM_SPAN, "The latents' span beats random subspaces")
    chosen = _placed(result, CHOSEN, RANDOM_LAYERS, "Specificity chooses better than chance")
    elsewhere = _nothing_lost(result)
    parts = (tuned.holds, not scalpel.holds, stethoscope.holds, chosen.holds, elsewhere.holds)
    whole = Finding(
        "Stethoscope, not scalpel", all(parts), f"{sum(parts)} of its {len(parts)} conditions hold"
    )
    return [tuned, _more_energy(result), scalpel, span, stethoscope, chosen, elsewhere, whole]


def _improves(result: TaskVectorResult, name: str, claim: str) -> Finding:
    test = against(result, name, BASE, result.task)
    holds = test.p_value < ALPHA and test.difference > 0
    return Finding(claim, holds, _told(test, result.arm(name), result.task))


def _placed(result: TaskVectorResult, name: str, control: str, claim: str) -> Finding:
    arm, others = result.arm(name), result.arm(control)
    p = placement(arm, others, result.task)
    shares = f"{arm.share(result.task):.1%} against {others.share(result.task):.1%} on average"
    few = 1 / (1 + others.draws) > ALPHA
    told = f"p = {p:.3f}" + (f", which so few draws cannot bring to {ALPHA:.0%}" if few else "")
    return Finding(claim, p <= ALPHA, f"{shares} of {others.draws} draws, {told}")


def _more_energy(result: TaskVectorResult) -> Finding:
    kept = [reading.kept for reading in result.readings.values()]
    above = sum(each.kept > each.high for each in kept)
    mean = sum(each.kept for each in kept) / len(kept)
    baseline = sum(each.baseline for each in kept) / len(kept)
    return Finding(
        "The latents' span holds more energy than chance",
        2 * above > len(kept),
        f"mean {mean:.1%} against r / d = {baseline:.1%}; "
        + f"above random subspaces in {above} of {len(kept)} layers",
    )


def _nothing_lost(result: TaskVectorResult) -> Finding:
    tests = {name: against(result, CHOSEN, BASE, name) for name in result.elsewhere}
    lost = [name for name, t in tests.items() if t.p_value < ALPHA and t.difference < 0]
    arm = result.arm(CHOSEN)
    figures = "; ".join(f"{name} {_told(test, arm, name)}" for name, test in tests.items())
    return Finding("The chosen layers lose nothing elsewhere", not lost, figures)


def _told(test: ProportionTest, arm: Arm, samples: str) -> str:
    paired = arm.paired_p_value(samples)
    beside = "" if paired is None else f" (McNemar's exact p = {paired:.2g})"
    return f"{100 * test.difference:+.1f} points, z = {test.z:+.2f}, p = {test.p_value:.2g}{beside}"
