from typing import get_args

import pytest

from lightsae.interventions.look_ahead.both_directions import conclusion
from lightsae.interventions.steering.result import Outcome, SteeringResult

TOLD = {
    "works": "works",
    "controls": "helps no more than a control",
    "guards": "helps at too much damage",
    "nothing": "does nothing",
    "no point": "has no point that keeps the guards",
}


@pytest.mark.parametrize("amplify", get_args(Outcome))
@pytest.mark.parametrize("suppress", get_args(Outcome))
def test_the_conclusion_follows_from_both_outcomes(amplify: Outcome, suppress: Outcome) -> None:
    results = {
        "amplify": SteeringResult("leak rate", True, {}, outcome=amplify, verdict="One."),
        "suppress": SteeringResult("leak rate", True, {}, outcome=suppress, verdict="Two."),
    }
    first, second, third = conclusion(results).splitlines()
    assert first.endswith("time-aware latents. One.")
    assert second.endswith("look-ahead latents. Two.")
    assert third.endswith(f"here amplifying {TOLD[amplify]} and suppressing {TOLD[suppress]}.")
