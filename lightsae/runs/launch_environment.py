"""Checks that the environment variables of torchrun or SLURM are complete."""

import os

from lightsae.errors import LightsaeError

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
_NUMBERS = (
    *_RANKS, "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_PORT", "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE", "SLURM_NNODES", "SLURM_LOCALID", "SLURM_NODEID",
)  # fmt: skip
_OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_OF_SRUN = ("SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")


def require_whole_launch() -> None:
    """Refuse an environment of which Lightning would take one half and miss the other.

    Raises:
        LightsaeError: Naming the variable, and what to do.

    Example:
        >>> import os
        >>> os.environ["LOCAL_RANK"] = "one"
        >>> require_whole_launch()
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: LOCAL_RANK is 'one', expected a whole number
        >>> del os.environ["LOCAL_RANK"]
    """
    for name in _NUMBERS:
        if not os.environ.get(name, "0").isdigit():
            raise LightsaeError(f"{name} is {os.environ[name]!r}, expected a whole number")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _require(_OF_TORCHRUN, "TORCHELASTIC_RUN_ID")
    elif _tasks() > 1:
        if not os.environ.keys() & {"SLURM_STEP_ID", "SLURM_STEPID"}:
            raise LightsaeError(
                f"SLURM_NTASKS is {_tasks()}, but srun did not start this command: begin it with "
                "srun, or unset SLURM_NTASKS for one process"
            )
        _require(_OF_SRUN, "SLURM_NTASKS", ": give --ntasks-per-node")


def require_processes(world_size: int, per_node: int) -> None:
    """Refuse to train as another number of processes than were started, or as one of no rank.

    Args:
        world_size: Processes of the trainer.
        per_node: Of these, on this node.

    Raises:
        LightsaeError: Naming the variable that does not agree.

    Example:
        >>> require_processes(world_size=1, per_node=1)
    """
    here = f"trainer.devices and trainer.num_nodes make {world_size}"
    # torchrun within a job of SLURM counts; the job's tasks are its nodes.
    name = "WORLD_SIZE" if "WORLD_SIZE" in os.environ else "SLURM_NTASKS"
    started = _tasks() if name == "SLURM_NTASKS" else int(os.environ[name])
    if started not in (0, world_size):
        raise LightsaeError(f"{name} is {started}, {here}: expected as many processes")
    for name in _RANKS:
        most = per_node if name == "LOCAL_RANK" else world_size
        if int(os.environ.get(name, 0)) >= most:
            raise LightsaeError(
                f"{name} is {os.environ[name]}, {here}: start them with torchrun or srun, or unset "
                f"{name}"
            )
    if world_size > 1 and "LOCAL_RANK" in os.environ:
        _require(("MASTER_PORT",), "LOCAL_RANK")


def _tasks() -> int:
    """Processes of a SLURM job, as far as Lightning would look at them."""
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return 0 if interactive else int(os.environ.get("SLURM_NTASKS", 0))


def _require(names: tuple[str, ...], given: str, advice: str = "") -> None:
    for name in names:
        if name not in os.environ:
            raise LightsaeError(f"{name} is not set, {given} is{advice}")
