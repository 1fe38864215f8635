"""Optimizers that nobody here wrote, against the algorithms that they name."""

from validation.third_party.judge import STUDY

__all__ = ["STUDY"]
