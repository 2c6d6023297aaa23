"""A study on scikit-learn's digits, from images to a comparison table."""

from lightsae.demo.command import demo, run

__all__ = ["demo", "run"]
