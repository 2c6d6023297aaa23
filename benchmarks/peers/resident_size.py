"""Resident size of this process, by the standard library alone: peers' environments run it."""

from pathlib import Path


def reset_peak() -> bool:
    """Set VmHWM back to VmRSS; False where the kernel does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def resident_mib(field: str) -> float:
    """A size in /proc/self/status: VmRSS is what is held, VmHWM its peak since the reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
