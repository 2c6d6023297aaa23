"""The commands of the package in a row, on scikit-learn's digits."""

from lightsae.demo.command import demo

__all__ = ["demo"]
