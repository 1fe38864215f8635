"""The main job on real input, in one command: ``deltabias demo``, or ``make demo``.

Derive a typed rule's bias, generate its corrected update and run its test, hold both against exact
truth, train a small language model with and without the correction, and compare the bias predicted
in each of its layers with the measured one. Under three minutes on two cores, without a download.
"""

from deltabias.demo.story import run_demo

__all__ = ["run_demo"]
