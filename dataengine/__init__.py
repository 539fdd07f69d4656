"""A data engine for robot- and object-pose research."""

__version__ = "0.1.0"
