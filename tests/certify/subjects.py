"""The rules whose certificates the tests look at, each made once."""

from functools import cache

from deltabias.codegen.coq.certificate import Certificate
from deltabias.codegen.coq.scalar import scalar_certificate
from deltabias.rule import UpdateRule
from deltabias.rules import CATALOGUE

BOXES = {"g*tanh(v)": (("v", ("-1", "2")),)}


@cache
def certificate(text: str, order: int = 2) -> Certificate:
    """Of a catalogue's rule or of a typed one."""
    rule = CATALOGUE.get(text) or UpdateRule.parse(text, name="typed")
    return scalar_certificate(rule, order, dict(BOXES.get(text, ())))
