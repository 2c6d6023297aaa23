"""Worked examples, each a program: `python -m lightsae.interventions.examples.NAME`."""
