"""Verdicts: does this optimizer compute its rule, and how large is the bias of this update?

>>> import deltabias.verify
>>> sorted(deltabias.verify.__all__)
['Check', 'Report', 'StepRule', 'check_bias', 'check_optimizer', 'verify_target']

Every name is imported when it is first used, so importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltabias.verify.bias import check_bias
    from deltabias.verify.conformance import check_optimizer
    from deltabias.verify.record import Check, Report
    from deltabias.verify.step_rule import StepRule
    from deltabias.verify.target import verify_target

_HOMES = {
    "Check": "record",
    "Report": "record",
    "StepRule": "step_rule",
    "check_bias": "bias",
    "check_optimizer": "conformance",
    "verify_target": "target",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


__all__ = ["Check", "Report", "StepRule", "check_bias", "check_optimizer", "verify_target"]
