"""A study on scikit-learn's digits, from images to a comparison table."""

from lightsae.demo.command import demo

__all__ = ["demo"]
