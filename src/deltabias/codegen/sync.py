"""Writes generated files, and checks them: the function that writes is the one that compares."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

from deltabias.calculus.spectral import SpectralMap
from deltabias.codegen.backends import emit_backend, emit_backend_test
from deltabias.codegen.compiled_emit import emit_compiled
from deltabias.codegen.coq.scalar import scalar_certificate
from deltabias.codegen.coq.subject import Subject, certificate_text
from deltabias.codegen.emit import MARK, Emitted, digest, emit
from deltabias.codegen.gappa import rounding_scripts
from deltabias.codegen.kernels import has_step
from deltabias.codegen.matrix_emit import emit_matrix_rule
from deltabias.codegen.spectral_emit import emit_map
from deltabias.codegen.triton import emit_triton
from deltabias.errors import GenerateError
from deltabias.matrix_rule import MatrixRule
from deltabias.rule import UpdateRule

GENERATED = Path("src/deltabias/generated")
COMPILED = GENERATED / "compiled"
TRITON = GENERATED / "triton"
TESTS = Path("tests/generated")
DOCS = Path("docs/rules")
CERTIFICATES = Path("proofs/certificates")
ROUNDING = Path("proofs/rounding")
FOURTH_ORDER = {
    "inverse_sqrt_plus_eps": "1/(sqrt(v)+eps)",
    "inverse_root_2": "v**(-1/2)",
    "inverse_root_4": "v**(-1/4)",
}
"""Matrix functions whose scalar map is certified to fourth order, in a file of its own."""

FOLDERS = (GENERATED, COMPILED, TRITON, TESTS, DOCS, CERTIFICATES, ROUNDING)


@dataclass(frozen=True)
class Drift:
    """A generated file that is not what its rule says: missing, changed, or without a rule."""

    path: Path
    kind: str
    diff: str = ""


def emit_any(subject: Subject, *, import_line: str | None = None) -> Emitted:
    """The files of a rule, scalar or of matrices, or of a matrix function."""
    if isinstance(subject, SpectralMap):
        return emit_map(subject, import_line=import_line)
    if isinstance(subject, MatrixRule):
        return emit_matrix_rule(subject, import_line=import_line)
    return emit(subject, import_line=import_line)


def catalogue_files(subjects: Iterable[Subject]) -> dict[Path, str]:
    """Every file of the catalogue, relative to the project's root."""
    files: dict[Path, str] = {}
    for subject in subjects:
        emitted = emit_any(subject)
        if isinstance(subject, UpdateRule):
            files |= _backend_files(subject)
        files[GENERATED / f"{emitted.name}.py"] = emitted.module
        files[TESTS / f"test_{emitted.name}.py"] = emitted.test
        files[DOCS / f"{emitted.name}.md"] = emitted.docs
        files[CERTIFICATES / f"{emitted.name}.v"] = certificate_text(subject)
        if isinstance(subject, UpdateRule):
            header = f"{MARK} Rule {subject.name}, digest {digest(subject)}."
            scripts = rounding_scripts(subject, header=header)
            files |= {ROUNDING / name: text for name, text in scripts.items()}
        if isinstance(subject, SpectralMap) and subject.name in FOURTH_ORDER:
            name = f"{subject.name}_fourth_order"
            rule = UpdateRule.parse(FOURTH_ORDER[subject.name], name=name)
            header = f"{MARK} Rule {name}, digest {digest(rule)}."
            files[CERTIFICATES / f"{name}.v"] = scalar_certificate(rule, 4, mark=header).text
    return files


def _backend_files(rule: UpdateRule) -> dict[Path, str]:
    """The steps of a rule for ``torch.compile`` and for Triton; none for a rule without steps."""
    if not has_step(rule):
        return {}
    file = f"{rule.name}.py"
    return {COMPILED / file: emit_compiled(rule), TRITON / file: emit_triton(rule)}


def compare(root: Path, files: Mapping[Path, str]) -> list[Drift]:
    """What on disk differs from what the rules say, orphans included."""
    drifts = []
    for path, text in files.items():
        target = root / path
        if not target.exists():
            drifts.append(Drift(path, "missing"))
        elif (found := target.read_text()) != text:
            lines = unified_diff(
                found.splitlines(), text.splitlines(), str(path), "rule", n=1, lineterm=""
            )
            drifts.append(Drift(path, "changed", "\n".join(lines)))
    for folder in FOLDERS:
        for target in sorted((root / folder).glob("*")):
            path = target.relative_to(root)
            if target.is_file() and path not in files and MARK in _text(target):
                drifts.append(Drift(path, "orphan"))
    return drifts


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


def write(root: Path, files: Mapping[Path, str]) -> list[Path]:
    """Write files whole or not at all; orphans are removed. Returns what changed."""
    changed = compare(root, files)
    _replace({root / d.path: files[d.path] for d in changed if d.kind != "orphan"})
    for drift in changed:
        if drift.kind == "orphan":
            (root / drift.path).unlink()
    return [d.path for d in changed]


def _replace(files: Mapping[Path, str]) -> None:
    """Stage every file, then rename: none is seen half written, nothing temporary stays."""
    staged: list[tuple[str, Path]] = []
    try:
        for target, text in files.items():
            staged.append((_stage(target, text), target))
        for temporary, target in staged:
            os.replace(temporary, target)
    finally:
        for temporary, _ in staged:
            Path(temporary).unlink(missing_ok=True)


def _stage(target: Path, text: str) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
    os.chmod(temporary, 0o644)
    return temporary


def write_rule(rule: Subject, directory: Path, backends: Iterable[str] = ()) -> list[Path]:
    """Module, test, documentation fragment and certificate of one rule.

    `backends`, of `deltabias.codegen.backends.BACKENDS`, add a module and a test each.

    Raises
    ------
    GenerateError
        if a file of that name is there and was not generated, or for a backend that cannot print
        the rule; nothing is written then.
    """
    directory = Path(directory)
    emitted = emit_any(rule, import_line=_loader(rule.name))
    files = {
        directory / f"{rule.name}.py": emitted.module,
        directory / f"test_{rule.name}.py": emitted.test,
        directory / f"{rule.name}.md": emitted.docs,
        directory / f"{rule.name}.v": certificate_text(rule),
    }
    for backend in backends:
        name = f"{rule.name}_{backend}"
        files[directory / f"{name}.py"] = emit_backend(rule, backend)
        files[directory / f"test_{name}.py"] = emit_backend_test(rule, backend, _loader(name))
    for path in files:
        if path.exists() and MARK not in _text(path):
            raise GenerateError(
                f"{path} exists and was not generated; move it or use another name."
            )
    _replace(files)
    return list(files)


def _loader(name: str) -> str:
    """How a test reaches the module beside it."""
    return (
        "from importlib.util import module_from_spec, spec_from_file_location\n"
        "from pathlib import Path\n\n"
        f'_path = Path(__file__).with_name("{name}.py")\n'
        f'_spec = spec_from_file_location("{name}", _path)\n'
        "module = module_from_spec(_spec)\n_spec.loader.exec_module(module)\n"
    )
