"""How long `derive` takes in a fresh process, imports not counted.

One process imports and then forks for each measurement: the child has everything imported and
nothing derived, cached or simplified. One at a time, so that nothing competes.
"""

import json
import statistics
import subprocess
import sys

from deltabias.rules import CATALOGUE
from validation.study import Findings, Progress, Row, Study, no_progress

LIMITS = {1: 0.5, 2: 0.5, 3: 2.0}
"""Seconds a rule, by order. The leading bias is order 1; what it leaves is of second order."""

REPEATS = 3

MEASURE = """
import json, os, sys, time
from deltabias.derivation import derive
from deltabias.rules import get_rule

def seconds(name, order):
    read, write = os.pipe()
    if os.fork() == 0:
        started = time.perf_counter()
        derive(get_rule(name), order)
        os.write(write, repr(time.perf_counter() - started).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    os.wait()
    return float(text)

name, orders, repeats = json.loads(sys.argv[1])
print(json.dumps([[seconds(name, order) for _ in range(repeats)] for order in orders]))
"""


def measure(rule_name: str, orders: tuple[int, ...], repeats: int = REPEATS) -> list[list[float]]:
    """Seconds of each repeat, for each order.

    Raises
    ------
    RuntimeError
        with the process's own words, if a derivation fails.
    """
    found = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps([rule_name, orders, repeats])],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise RuntimeError(f"timing derive of {rule_name!r} failed:\n{found.stderr}")
    return json.loads(found.stdout)


def study(
    *,
    workers: int = 1,
    progress: Progress = no_progress,
    rules: tuple[str, ...] = tuple(CATALOGUE),
    repeats: int = REPEATS,
) -> Findings:
    """The median seconds of every rule at every order; one at a time, whatever `workers` is."""
    lines = []
    for done, rule in enumerate(rules, start=1):
        for order, seconds in zip(LIMITS, measure(rule, tuple(LIMITS), repeats), strict=True):
            lines.append({"rule": rule, "order": order, "seconds": statistics.median(seconds)})
        progress(done, len(rules))
    rows = []
    for order, limit in LIMITS.items():
        slowest = max((x for x in lines if x["order"] == order), key=lambda x: x["seconds"])
        rows.append(
            Row(
                f"derive(rule, order={order}) takes less than {limit} s for every rule",
                slowest["seconds"],
                limit,
                passed=bool(slowest["seconds"] < limit),
                note=f"slowest: {slowest['rule']}; {len(rules)} rules, median of {repeats}",
            )
        )
    return Findings(rows, {"seconds": lines}, {"repeats": repeats})


STUDY = Study("derive_speed", "derivations take less than 0.5 s, at third order 2 s", study)
