"""Every test starts from the same global numerics, whatever the one before it left behind."""

import mpmath
import pytest
import torch
from hypothesis import Phase, settings

# few examples, the same ones each time: a property test here is a table that writes itself
# (no shrinking: it takes minutes on formulas, and the first failing one is small enough)
settings.register_profile(
    "fixed",
    derandomize=True,
    deadline=None,
    max_examples=25,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def default_numerics():
    """mpmath's digits, torch's default dtype and one thread, so that results are repeatable."""
    digits, dtype, threads = mpmath.mp.dps, torch.get_default_dtype(), torch.get_num_threads()
    mpmath.mp.dps = 15
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)
    yield
    mpmath.mp.dps = digits
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
