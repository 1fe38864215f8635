"""The other side of `deltabias.verify.process`: loads a target, checks it, writes events.

An event is a JSON object on a line of its own: ``{"doing": …}`` before each stage, so that a
process that dies says where; ``{"file": …}``; and at the end ``{"checks": […]}``, plain data
only. Whatever the target raises, `SystemExit` included, is an answer too.
"""

import contextlib
import faulthandler
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from deltabias.errors import DeltabiasError, ParseError, RuleError
from deltabias.verify.record import ERROR, Check
from deltabias.verify.target import load_target, parse_target

LARGEST_FILE = 1 << 30
SPARE = 512 << 20
"""Memory that is set free for the answer once the limit was hit, in bytes."""


class Events:
    """A file that only this process writes: a forked child shares the code, not the right."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._owner = os.getpid()

    def write(self, **event: object) -> None:
        if os.getpid() != self._owner:
            os._exit(0)  # a child of the target came back into our code
        self._file.write(json.dumps(event, default=_plain) + "\n")
        self._file.flush()


def main(folder: str) -> None:
    """Do the job of a folder, and end the process without waiting for the target's threads."""
    here = Path(folder)
    job = json.loads((here / "job.json").read_text(encoding="utf-8"))
    trace = (here / "trace.txt").open("w", encoding="utf-8")
    faulthandler.enable(trace)
    # a thread in C: it also ends this process when nobody is left to kill it
    faulthandler.dump_traceback_later(max(job["until"] - time.time(), 0.01), exit=True, file=trace)
    _limit(job["memory"])
    events = Events(here / "events.jsonl")
    events.write(checks=[asdict(check) for check in checks(job, events)])
    with contextlib.suppress(Exception):  # the target may have replaced or closed them
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def checks(job: Mapping, events: Events) -> tuple[Check, ...]:
    """The checks of a job, or one that says at which stage and why there are none."""
    stage, file = "target", _file(job["target"])
    try:
        events.write(doing="importing the target", file=file)
        target = load_target(job["target"])
        file = getattr(sys.modules.get(getattr(target, "__module__", "")), "__file__", file)
        events.write(file=file)
        _refuse(target, job)
        stage = "rule"
        events.write(doing="reading the rule")
        from deltabias.verify.jobs import PREPARE

        check = PREPARE[job["kind"]](target, job)
        stage = "run"
        events.write(doing="running the check")
        return check()
    except (RuleError, ParseError) as error:
        return (Check("rule", ERROR, detail=str(error)),)
    except DeltabiasError as error:
        return (Check(stage, ERROR, detail=str(error)),)
    except MemoryError:
        _limit(None)
        reason = f"out of memory while it ran; the limit is {job['memory'] >> 20} MiB."
        return (Check(stage, ERROR, detail=reason),)
    except BaseException as error:
        _limit(None)
        return (Check(stage, ERROR, detail=_reason(error, stage, file)),)


def _file(text: str) -> str | None:
    target = parse_target(text)
    return str(Path(target.place).resolve()) if target.is_file else None


def _refuse(target: object, job: Mapping) -> None:
    """What cannot be called, or has no ``step``, is not what was announced."""
    what, name = job["kind"], job["target"]
    if not callable(target):
        raise DeltabiasError(
            f"{name} is of type {type(target).__name__} and cannot be called; give "
            + ("a class or a factory." if what == "optimizer" else "a function.")
        )
    if what == "optimizer" and isinstance(target, type) and not hasattr(target, "step"):
        raise DeltabiasError(f"{name} is a class without a `step`: no optimizer.")


def _reason(error: BaseException, stage: str, file: str | None) -> str:
    """One sentence: what was raised, and the innermost line of the target that led there."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename[:1] != "<"]
    package = str(Path(__file__).parents[1])
    if frames and frames[-1].filename.startswith(package) and isinstance(error, ValueError):
        return str(error)  # our own refusal of an argument
    theirs = [f for f in frames if f.filename == file]
    others = [f for f in frames if not f.filename.startswith(package)]
    where = "".join(
        f" in {f.name} ({Path(f.filename).name}:{f.lineno})" for f in (theirs or others)[-1:]
    )
    doing = {"target": "importing it", "rule": "reading the rule", "run": "running the check"}
    return f"{doing[stage]} raised {type(error).__name__}{where}: {str(error) or 'no message'}"


def _limit(data: int | None) -> None:
    """Bound the memory, the size of files and core dumps; None sets some memory free again."""
    try:
        import resource
    except ImportError:  # not on this system; the time limit is all there is
        return
    with contextlib.suppress(ValueError, OSError):
        if data is None:
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
            return
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
        resource.setrlimit(resource.RLIMIT_DATA, (data, data + SPARE))


def _plain(value: object) -> object:
    """Numbers of other libraries become Python's; everything else is said in words."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else str(value)
