"""Every test of the validation starts from mpmath's default precision."""

import mpmath
import pytest


@pytest.fixture(autouse=True)
def default_precision():
    mpmath.mp.dps = 15
    yield
    mpmath.mp.dps = 15
