"""The table in proofs/README.md names the certificates that are there, and nothing else."""

import re
from pathlib import Path

import pytest

from deltabias.certify import coq, table
from deltabias.codegen.coq.certificate import KINDS

PROOFS = Path(__file__).resolve().parents[2] / "proofs"
ROW = re.compile(r"^\| (\w+) \| [\w ]+ \| .* \| `([\w']+)` \| \[(\w+)\.v\]", re.M)


def stated() -> list[tuple[str, str]]:
    found = []
    for path in sorted((PROOFS / "certificates").glob("*.v")):
        found += [(path.stem, t.name) for t in coq.theorems_of(path.stem, path.read_text())]
    return found


def rows(text: str) -> list[tuple[str, str]]:
    part = text.split(table.BEGIN)[1].split(table.END)[0]
    return [(m[1], m[2]) for m in ROW.finditer(part) if m[1] == m[3]]


def test_the_table_names_exactly_the_certificates_and_their_theorems():
    assert sorted(rows((PROOFS / "README.md").read_text())) == sorted(stated())
    assert len(stated()) > 150


def test_every_theorem_of_a_certificate_says_what_it_is():
    for path in (PROOFS / "certificates").glob("*.v"):
        for theorem in coq.theorems_of(path.stem, path.read_text()):
            kind, words = table.kind_of(theorem.words)
            assert kind in ("", *(k.replace("_", " ") for k in KINDS))
            assert words.endswith("."), (path.name, theorem.name)


def report() -> coq.Report:
    one = coq.Statement("bound_of_it", "certificates.mine", "bound: It is a|b at most.")
    return coq.Report(
        "8.16.1",
        seconds={"certificates.mine": 2.4, "taylor": 1.0},
        axioms={"certificates.mine": ["Classical_Prop.classic"], "taylor": []},
        theorems=[coq.Statement("taylor_lagrange", "taylor", "Taylor."), one],
    )


def test_a_row_has_rule_statement_theorem_file_seconds_and_axioms():
    text = table.render(report())
    assert (
        r"| mine | bound | It is a\|b at most. | `bound_of_it` "
        "| [mine.v](certificates/mine.v) | 2 | D |" in text
    )
    assert "taylor" not in text


def test_only_the_part_between_the_marks_is_written(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write(readme, report())
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert rows(text) == [("mine", "bound_of_it")]
    readme.write_text("no marks\n")
    with pytest.raises(ValueError, match="lacks the lines"):
        table.write(readme, report())
