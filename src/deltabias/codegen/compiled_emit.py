"""The compiled module of a rule: its steps in one pass each, to be given to ``torch.compile``."""

from deltabias.codegen import compiled
from deltabias.codegen.emit import MARK, ROOT_HELPER, digest, format_source, words
from deltabias.codegen.kernels import RulePrograms, filling, rule_programs
from deltabias.codegen.ssa import Program
from deltabias.codegen.triton_print import written_tensors
from deltabias.rule import UpdateRule


def emit_compiled(rule: UpdateRule, *, updates: bool = False) -> str:
    """The rule's compiled module, formatted: its steps, and on request its two pure updates."""
    return format_source(_module(rule_programs(rule), updates))


def _module(programs: RulePrograms, updates: bool) -> str:
    rule = programs.rule
    pure = list(map(filling, programs.updates)) if updates else []
    steps = [*pure, *programs.steps, *programs.spaced]
    source = "\n\n".join(map(compiled.render, steps))
    helpers = ROOT_HELPER if "_root(" in source else ""
    helpers += compiled.CODE_HELPERS if "_decoded(" in source else ""
    entries = "".join(f'    "{p.name}": {_entry(p)},\n' for p in steps)
    what = "its updates and steps" if pure else "its steps"
    return f'''"""{words(rule.title or rule.name)}: {what} in one pass each, to be compiled.

{MARK} Rule {rule.name}, digest {digest(rule)}.
"""

{"import math" if "math." in source else ""}

import torch
from torch import Tensor
{helpers}

{source}

STEPS = {{
{entries}}}
'''


def _entry(program: Program) -> str:
    base = compiled.base_name(program)
    tables = f'"tensors": {program.tensors!r}, "written": {written_tensors(program)!r}'
    return f'{{{tables}, "pack": pack_{base}, "one_pass": one_pass_{base}}}'
