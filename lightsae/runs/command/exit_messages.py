"""The closing line of a run: finished, stopped early, out of time, or stopped by a signal."""


def finished(step: int, *, trained: bool, early: str | None) -> str:
    """A run that is done.

    Args:
        step: Optimizer steps that it took in all.
        trained: Whether this command took any of them.
        early: Why early stopping ended it, if it did.

    Example:
        >>> finished(20, trained=False, early=None)
        'nothing left to do, finished after step 20'
    """
    idle = "" if trained else "nothing left to do, "
    return f"{idle}finished after step {step}" + (f", stopped early: {early}" if early else "")


def out_of_time(step: int, *, trained: bool) -> str:
    """A run that a `Timer` of the user's ended, for this command and the next.

    Example:
        >>> out_of_time(20, trained=False)
        'nothing left to do, the time of its Timer, which counts all commands of the run, is up \
after step 20'
    """
    idle = "" if trained else "nothing left to do, "
    return (
        f"{idle}the time of its Timer, which counts all commands of the run, is up "
        f"after step {step}"
    )


def stopped(step: int, *, kept: int | None, resumes: bool) -> str:
    """A run that a signal ended.

    Args:
        step: Optimizer steps that it took.
        kept: Step of its checkpoint, or None.
        resumes: Whether the same command goes on from that checkpoint.

    Example:
        >>> stopped(7, kept=5, resumes=True)
        'stopped after step 7; the same command goes on after step 5'
        >>> stopped(7, kept=None, resumes=True)
        'stopped after step 7, before a checkpoint was written'
    """
    text = f"stopped after step {step}"
    if kept is None:
        return f"{text}, before a checkpoint was written"
    if not resumes:
        return f"{text}; its checkpoint is of step {kept}"
    return f"{text}; the same command goes on" + ("" if kept == step else f" after step {kept}")
