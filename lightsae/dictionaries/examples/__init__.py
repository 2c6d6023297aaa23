"""Worked examples, each a program: `python -m lightsae.dictionaries.examples.NAME`."""
