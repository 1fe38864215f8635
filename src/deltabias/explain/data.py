"""An explanation for programs."""

import json

from deltabias.explain.record import Explanation
from deltabias.notation.printing import display


def record(explanation: Explanation) -> dict:
    """Everything as strings: ``expression`` as SymPy writes it, ``latex`` as pages do."""
    return {
        "rule": str(explanation.rule),
        "name": explanation.rule.name,
        "title": explanation.title,
        "strategy": explanation.strategy,
        "steps": [
            {
                "id": p.id,
                "kind": p.kind,
                "title": p.title,
                "sentence": p.sentence,
                "expression": None if p.expression is None else str(p.expression),
                "latex": None if p.expression is None else display(p.expression, explanation.names),
            }
            for p in explanation.passages
        ],
    }


def render(explanation: Explanation) -> str:
    """Strict JSON."""
    return json.dumps(record(explanation), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
