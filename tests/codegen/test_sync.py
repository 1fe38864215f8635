"""Writing and checking are one function: drift, hand edits, orphans and missing files are named."""

import os
from functools import cache

import pytest

from deltabias.codegen.emit import MARK
from deltabias.codegen.sync import (
    CERTIFICATES,
    DOCS,
    FOLDERS,
    GENERATED,
    ROUNDING,
    TESTS,
    catalogue_files,
    compare,
    write,
    write_rule,
)
from deltabias.errors import GenerateError
from deltabias.rule import UpdateRule
from deltabias.rules import get_rule

TYPED = UpdateRule.parse("g/(v+eps)", name="typed")


@cache
def files():
    """The files of a catalogue of two."""
    return catalogue_files([get_rule("inverse"), get_rule("inverse_sqrt")])


@pytest.fixture
def root(tmp_path):
    write(tmp_path, files())
    return tmp_path


def kinds(root, expected=None):
    return {str(d.path): d.kind for d in compare(root, expected or files())}


def everything(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_rule_has_four_files_besides_its_rounding_scripts():
    assert {p for p in files() if p.parent != ROUNDING} == {
        folder / name.format(rule)
        for rule in ("inverse", "inverse_sqrt")
        for folder, name in zip(
            (GENERATED, TESTS, DOCS, CERTIFICATES),
            ("{}.py", "test_{}.py", "{}.md", "{}.v"),
            strict=True,
        )
    }


def test_what_was_written_matches_and_is_not_written_again(root):
    assert kinds(root) == {}
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert write(root, files()) == []
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


def test_a_missing_file_is_named(root):
    path = GENERATED / "inverse.py"
    (root / path).unlink()
    assert kinds(root) == {str(path): "missing"}
    assert write(root, files()) == [path]
    assert kinds(root) == {}


@pytest.mark.parametrize("edit", [lambda s: s + "\n", lambda s: s.replace("g", "q", 1),
                                  lambda s: s.replace(MARK, ""), lambda s: ""])  # fmt: skip
@pytest.mark.parametrize("path", sorted(map(str, [GENERATED / "inverse.py", DOCS / "inverse.md"])))
def test_a_hand_edit_is_named_with_its_difference(root, path, edit):
    target = root / path
    target.write_text(edit(target.read_text()))
    (drift,) = compare(root, files())
    assert (str(drift.path), drift.kind) == (path, "changed")
    assert f"--- {path}" in drift.diff
    assert "+++ rule" in drift.diff


def test_a_rule_that_changed_is_named(root):
    changed = dict(files()) | {GENERATED / "inverse.py": "another\n"}
    assert kinds(root, changed) == {str(GENERATED / "inverse.py"): "changed"}


def test_an_orphan_is_named_and_removed(root):
    left = {p: t for p, t in files().items() if "inverse_sqrt" not in p.name}
    orphans = {str(p): "orphan" for p in files() if "inverse_sqrt" in p.name}
    assert kinds(root, left) == orphans
    assert set(map(str, write(root, left))) == set(orphans)
    assert kinds(root, left) == {}
    assert set(everything(root)) == set(left)


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_a_file_written_by_hand_is_no_orphan(root, folder):
    (root / folder).mkdir(exist_ok=True)  # neither rule has a step, so two folders are not there
    (root / folder / "notes.md").write_text("by hand\n")
    assert kinds(root) == {}
    write(root, {})
    assert (root / folder / "notes.md").read_text() == "by hand\n"


def test_a_file_that_is_not_text_is_no_orphan(root):
    (root / DOCS / "figure.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    assert kinds(root) == {}


# -- whole or not at all --------------------------------------------------------------------------


class Disk:
    """os.replace that fails at its n-th call."""

    def __init__(self, fails_at):
        self.left, self.replace = fails_at, os.replace

    def __call__(self, source, target):
        self.left -= 1
        if self.left == 0:
            raise OSError("no space left on device")
        self.replace(source, target)


@pytest.mark.parametrize("fails_at", [1, 2, 8])
def test_every_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch, fails_at):
    monkeypatch.setattr(os, "replace", Disk(fails_at))
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path, files())
    found = everything(tmp_path)
    assert len(found) == fails_at - 1
    assert all(files()[p].encode() == text for p, text in found.items())  # and no leftovers
    monkeypatch.undo()
    write(tmp_path, files())
    assert kinds(tmp_path) == {}


def test_a_failure_while_staging_changes_nothing(root, monkeypatch):
    before = everything(root)
    changed = {p: t + "# changed\n" for p, t in files().items()}
    count = iter(range(100))

    def full(handle, mode):
        if next(count) == 3:
            raise OSError("no space left on device")
        return os_fdopen(handle, mode)

    os_fdopen = os.fdopen
    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OSError, match="no space left"):
        write(root, changed)
    # the staged file that could not be opened is the operating system's to name; no target changed
    assert {p: t for p, t in everything(root).items() if p in before} == before


# -- one rule into a directory --------------------------------------------------------------------


def test_one_rule_is_written_into_a_directory_and_written_again(tmp_path):
    paths = write_rule(TYPED, tmp_path / "new" / "place")
    assert [p.name for p in paths] == [
        "typed.py", "test_typed.py", "typed.md", "typed.v"
    ]  # fmt: skip
    before = everything(tmp_path)
    write_rule(TYPED, tmp_path / "new" / "place")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["typed.py", "test_typed.py", "typed.md"])
def test_a_file_that_was_not_generated_is_never_overwritten(tmp_path, name):
    (tmp_path / name).write_text("my own\n")
    with pytest.raises(GenerateError, match=f"{name} exists and was not generated; move it or use"):
        write_rule(TYPED, tmp_path)
    assert everything(tmp_path) == {(tmp_path / name).relative_to(tmp_path): b"my own\n"}


@pytest.mark.parametrize("fails_at", [1, 3])
def test_one_rule_leaves_nothing_half_written(tmp_path, monkeypatch, fails_at):
    write_rule(TYPED, tmp_path / "whole")
    whole = {p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()}
    monkeypatch.setattr(os, "replace", Disk(fails_at))
    with pytest.raises(OSError, match="no space left"):
        write_rule(TYPED, tmp_path / "part")
    for path in (tmp_path / "part").iterdir():
        assert path.name in whole, path.name
        assert path.read_bytes() == whole[path.name]
