"""The pytest plugin: `check_optimizer` and `check_bias` as fixtures that assert.

    def test_my_adamw(check_optimizer):
        check_optimizer(MyAdamW, "adamw")

    def test_my_update(check_bias):
        check_bias(update, 0.5, law=law, microbatches=16, claim=2)

A fixture takes what the function of the same name in `deltabias.verify` takes and returns what it
returns; any verdict but "pass" fails the test with the whole table. The seed is a digest of the
test's name, so it is the same on every machine and under pytest-xdist. This module imports
neither torch nor SymPy nor the rest of the package before a check is asked for.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from math import isfinite

import pytest

PROPERTY = "deltabias"
FIXTURES = ("check_optimizer", "check_bias")
MARKER = (
    "deltabias(seed=None, false_alarm=None): a check of an optimizer or an update; set by itself "
    "on each test that uses check_optimizer or check_bias."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Each option is an ini value too; the command line wins."""
    group = parser.getgroup("deltabias", "checks of optimizers and updates")
    for name, default, text in (
        ("seed", "0", "changes every check's seed, a digest of this and the test's name"),
        ("false-alarm", "1e-6", "the probability that one check_bias rejects what is right"),
    ):
        ini = f"deltabias_{name.replace('-', '_')}"
        group.addoption(f"--deltabias-{name}", default=None, help=f"{text} [default: {default}]")
        parser.addini(ini, text, default=default)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; refuse options that make no sense before any test runs."""
    config.addinivalue_line("markers", MARKER)
    _base_seed(config)
    _false_alarm(config)


def pytest_itemcollected(item: pytest.Item) -> None:
    """``-m deltabias`` selects every test that checks something."""
    if set(FIXTURES) & set(getattr(item, "fixturenames", ())):
        item.add_marker("deltabias")


@pytest.fixture
def check_optimizer(request: pytest.FixtureRequest) -> Callable:
    """`deltabias.verify.check_optimizer` that asserts its verdict."""
    return _asserting(request, "check_optimizer")


@pytest.fixture
def check_bias(request: pytest.FixtureRequest) -> Callable:
    """`deltabias.verify.check_bias` that asserts its verdict, at the run's false-alarm rate."""
    return _asserting(request, "check_bias")


def _asserting(request: pytest.FixtureRequest, name: str) -> Callable:
    from deltabias import verify
    from deltabias.verify.jobs import require

    require(name.removeprefix("check_"))
    item, config = request.node, request.config

    def check(subject: object, *arguments: object, **options: object) -> object:
        __tracebackhide__ = True
        options.setdefault("seed", _seed(item, config))
        if name == "check_bias":
            options.setdefault("false_alarm", _false_alarm(config, item))
        entry = {
            "check": name,
            "target": getattr(subject, "__qualname__", type(subject).__name__),
            "verdict": "error",
            "seed": options["seed"],
            "false_alarm": options.get("false_alarm"),
        }
        # recorded before the check: one that raises is in the summary too
        place = len(item.user_properties)
        item.user_properties.append((PROPERTY, json.dumps(entry)))
        result = getattr(verify, name)(subject, *arguments, **options)
        entry |= {"verdict": result.verdict, **_numbers(result)}
        item.user_properties[place] = (PROPERTY, json.dumps(entry))
        if not result.passed:
            raise AssertionError(f"{name}: {result.verdict}\n{result}\n{_how_to_repeat(entry)}")
        return result

    return check


def _numbers(result: object) -> dict:
    """What goes into the junit file besides the verdict."""
    if hasattr(result, "checks"):
        kept = ("name", "verdict", "measured", "expected", "diagnosis")
        return {"checks": [{k: _plain(getattr(c, k)) for k in kept} for c in result.checks]}
    kept = ("bias", "standard_error", "removed", "smallest_visible", "samples", "reason")
    return {k: _plain(getattr(result, k)) for k in kept if hasattr(result, k)}


def _plain(value: object) -> object:
    """As JSON has it: no number that is not finite, no tensor."""
    if value is None or isinstance(value, str | int):
        return value
    return value if isinstance(value, float) and isfinite(value) else str(value)


def _how_to_repeat(entry: dict) -> str:
    return f"seed={entry['seed']}, from the test's name; --deltabias-seed changes it."


# -- seeds and rates ------------------------------------------------------------------------------


def _seed(item: pytest.Item, config: pytest.Config) -> int:
    """32 bits of a digest of the test's name, the run's seed and how many checks came before."""
    chosen = _of_marker(item, "seed")
    if chosen is not None:
        return chosen
    before = sum(name == PROPERTY for name, _ in item.user_properties)
    # not item.nodeid: pytest-xdist adds a group's name to it
    test = f"{item.parent.nodeid}::{item.name}"
    digest = hashlib.sha256(f"{_base_seed(config)}/{test}/{before}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _base_seed(config: pytest.Config) -> int:
    text = _option(config, "seed")
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise pytest.UsageError(f"--deltabias-seed {text!r} must be an integer, 0 or more.")
    return int(text)


def _false_alarm(config: pytest.Config, item: pytest.Item | None = None) -> float:
    chosen = None if item is None else _of_marker(item, "false_alarm")
    text = _option(config, "false_alarm") if chosen is None else chosen
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate < 0.5:
        raise pytest.UsageError(f"--deltabias-false-alarm {text!r} must be between 0 and 0.5.")
    return rate


def _option(config: pytest.Config, name: str) -> str:
    given = config.getoption(f"deltabias_{name}")
    return str(config.getini(f"deltabias_{name}") if given is None else given).strip()


def _of_marker(item: pytest.Item, name: str) -> object:
    """The nearest marker that says it wins."""
    for marker in item.iter_markers("deltabias"):
        if marker.kwargs.get(name) is not None:
            return marker.kwargs[name]
    return None


# -- the summary ----------------------------------------------------------------------------------


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """One line for each check that did not pass (each check with -v), and the run's error rate."""
    entries = list(_entries(terminalreporter))
    if not entries:
        return
    terminalreporter.section("deltabias")
    for test, entry in entries:
        if entry["verdict"] != "pass" or config.get_verbosity() > 0:
            said = entry.get("reason") or next(
                (c["diagnosis"] for c in entry.get("checks", ()) if c["diagnosis"]), ""
            )
            line = f"{entry['verdict']:<12} {entry['check']} {entry['target']}  {said}".rstrip()
            terminalreporter.line(f"{line}  [{test}, seed={entry['seed']}]")
    passed = sum(entry["verdict"] == "pass" for _, entry in entries)
    terminalreporter.line(f"{passed} of {len(entries)} checks passed.")
    rates = [entry["false_alarm"] for _, entry in entries if entry["false_alarm"]]
    if rates:
        terminalreporter.line(
            f"{len(rates)} statistical checks: a false alarm in this run has a probability of "
            f"at most {sum(rates):.2g}."
        )


def _entries(terminalreporter: pytest.TerminalReporter) -> Iterator[tuple[str, dict]]:
    """Each check once, although setup, call and teardown all carry what came before them."""
    latest: dict[str, list] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            found = [v for n, v in getattr(report, "user_properties", ()) if n == PROPERTY]
            if len(found) >= len(latest.get(report.nodeid, ())) and found:
                latest[report.nodeid] = found
    for test, found in latest.items():
        for value in found:
            yield test, json.loads(value)
