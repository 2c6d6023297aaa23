"""Checkpoint files of a run, and what it takes to go on from one."""
