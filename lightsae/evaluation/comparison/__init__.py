"""Runs beside a baseline, paired by seed."""
