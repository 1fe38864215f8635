"""What is verified, by name: ``module:Name`` or ``path/to/file.py:Name``.

`load_target` imports it into this process. `verify_target` never does: it starts a process of
its own (`deltabias.verify.process`) that loads the target, runs the check and writes its result
down as JSON, so that whatever the target does ends as a verdict.
"""

import importlib
import importlib.util
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from deltabias.errors import DeltabiasError
from deltabias.verify.process import DEFAULT_SECONDS, clean, run_isolated
from deltabias.verify.record import ERROR, Check, Report

OPTIMIZER, BIAS = "optimizer", "bias"
KINDS = (OPTIMIZER, BIAS)
LIKE = "write module:Name or path/to/file.py:Name"


@dataclass(frozen=True)
class TargetName:
    """A module or a file, and the name in it, which may have dots: ``module:Class.build``."""

    place: str
    name: str

    @property
    def is_file(self) -> bool:
        return self.place.endswith(".py") or "/" in self.place or "\\" in self.place


@dataclass(frozen=True)
class Outcome:
    """The report on a target, and what the target printed (its end, where it printed much)."""

    report: Report
    printed: str = ""


def parse_target(text: str) -> TargetName:
    """Split what was typed; nothing is looked up yet.

    Raises
    ------
    DeltabiasError
        for text that is not of the two forms.

    Examples
    --------
    >>> parse_target("torch.optim:AdamW")
    TargetName(place='torch.optim', name='AdamW')
    """
    place, colon, name = text.rpartition(":")
    if not colon or not place:
        raise DeltabiasError(f"target {text!r} names no object; {LIKE}.")
    if not all(part.isidentifier() for part in name.split(".")):
        raise DeltabiasError(f"target {text!r}: {name!r} is not a Python name; {LIKE}.")
    target = TargetName(place, name)
    if target.is_file:
        if not place.endswith(".py"):
            raise DeltabiasError(f"target {text!r}: {place!r} is not a .py file; {LIKE}.")
    elif not all(part.isidentifier() for part in place.split(".")):
        raise DeltabiasError(f"target {text!r}: {place!r} is not a module's name; {LIKE}.")
    return target


def load_target(text: str) -> object:
    """Import the target **into this process** and return it.

    A module is looked for in the current directory first; a file's own folder is put on
    ``sys.path``, as when Python runs it.

    Raises
    ------
    DeltabiasError
        where the module, the file or the name is not there. What the target raises while it is
        imported passes through.
    """
    target = parse_target(text)
    found: object = _load_file(Path(target.place)) if target.is_file else _load_module(target.place)
    done: list[str] = []
    for part in target.name.split("."):
        if not hasattr(found, part):
            where = ".".join([target.place, *done])
            raise DeltabiasError(f"{where} has no {part!r}.{_similar(part, found)}")
        found = getattr(found, part)
        done.append(part)
    return found


def verify_target(
    target: str,
    rule: str,
    *,
    kind: str = OPTIMIZER,
    time_limit: float = DEFAULT_SECONDS,
    memory_limit: int | None = None,
    seed: int = 0,
    options: Mapping | None = None,
) -> Outcome:
    """Load and check a target in a process of its own, and return the report.

    Parameters
    ----------
    target : ``module:Name`` or ``path/to/file.py:Name``
    rule : what `check_optimizer` takes as text; for ``kind="bias"`` what `check_bias` takes
    kind : ``"optimizer"`` or ``"bias"``
    time_limit : seconds after which the process and its children are killed
    memory_limit : bytes of data the process may hold [default: half of the machine's, ≤ 8 GiB]
    seed : of the check
    options : further keyword arguments of the check, as plain data

    A target that cannot be judged is a report with one check, ``target``, ``rule`` or ``run``,
    whose verdict is ``error`` and whose detail is the reason; this function does not raise for it.
    """
    if kind not in KINDS:
        raise DeltabiasError(f"{kind=} is unknown; use one of {', '.join(KINDS)}.")
    started = time.perf_counter()

    def report(checks: tuple[Check, ...]) -> Report:
        return Report(clean(target), clean(rule), checks, time.perf_counter() - started, seed)

    try:
        parse_target(target)
    except DeltabiasError as error:
        return Outcome(report((Check("target", ERROR, detail=str(error)),)))
    job = {
        "kind": kind,
        "target": target,
        "rule": rule,
        "seed": seed,
        "options": dict(options or {}),
    }
    ended = run_isolated(job, time_limit=time_limit, memory_limit=memory_limit)
    return Outcome(report(ended.checks), ended.printed)


def _load_module(name: str) -> ModuleType:
    _search_first(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise DeltabiasError(
                f"there is no module {error.name!r}, neither in the current directory nor among "
                "the installed packages."
            ) from error
        raise


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise DeltabiasError(f"{str(path)!r} is not there, or is no file.")
    path = path.resolve()
    if (path.parent / "__init__.py").exists():  # its relative imports want the package's name
        return _load_inside_package(path)
    _search_first(path.parent)
    # a file may be named like a module that is loaded already: torch.py, adamw.py
    name = path.stem if _is_free(path) else f"deltabias_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickle, dataclasses and torch.compile look it up by name
    spec.loader.exec_module(module)
    return module


def _load_inside_package(path: Path) -> ModuleType:
    parts, folder = [] if path.stem == "__init__" else [path.stem], path.parent
    while (folder / "__init__.py").exists() and folder != folder.parent:
        parts.insert(0, folder.name)
        folder = folder.parent
    _search_first(folder)
    return importlib.import_module(".".join(parts))


def _is_free(path: Path) -> bool:
    """Whether nothing but this file answers to its name."""
    if not path.stem.isidentifier() or path.stem in sys.modules:
        return False
    spec = importlib.util.find_spec(path.stem)
    return spec is None or (spec.origin is not None and Path(spec.origin).resolve() == path)


def _search_first(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _similar(name: str, owner: object) -> str:
    public = [n for n in vars(owner) if not n.startswith("_")] if hasattr(owner, "__dict__") else []
    near = get_close_matches(name, public, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
