"""The API reference: a page for every public module, and an error for a name without words.

A module is public if it lies directly under `deltabias`, is a door of its own below one of the
packages in `DEEPER`, and does not begin with an underscore. Of a package with ``__all__`` the
names in it are public, of a module those that it defines.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path

from sphinx.util import logging

import deltabias

log = logging.getLogger(__name__)
HERE = Path(__file__).resolve().parents[1]
FOLDER = HERE / "_generated" / "api"
LEFT_OUT = {"__main__", "generated", "cli", "demo", "codegen", "calculus", "reserved", "rules"}
DEEPER = {
    "codegen": ("ssa", "emit", "matrix_emit", "spectral_emit", "sync", "pages", "ulps"),
    "calculus": ("cumulants", "weights", "expansion", "matrix", "spectral", "divided"),
}
"""Packages that say nothing by themselves, and the modules of theirs that are for readers."""


def modules() -> list[str]:
    """The dotted names of the public modules, the doors first."""
    top = [m.name for m in pkgutil.iter_modules(deltabias.__path__) if m.name[0] != "_"]
    found = [f"deltabias.{name}" for name in top if name not in LEFT_OUT]
    found.append("deltabias.rules")
    for package, names in DEEPER.items():
        there = importlib.import_module(f"deltabias.{package}").__path__
        known = {m.name for m in pkgutil.iter_modules(there)}
        found += [f"deltabias.{package}.{name}" for name in names if name in known]
    return sorted(found)


def public_names(module) -> list[str]:
    """The names that the reference has to have."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def undocumented(module) -> list[str]:
    """Public functions and classes of a module, and their public methods, without a docstring."""
    missing = [] if inspect.getdoc(module) else [module.__name__]
    for name in public_names(module):
        value = getattr(module, name)
        if not (inspect.isroutine(value) or inspect.isclass(value)):
            continue
        if not (value.__doc__ or "").strip():
            missing.append(f"{module.__name__}.{name}")
    return missing


def page(name: str) -> str:
    """The reference page of a module."""
    module = importlib.import_module(name)
    listed = hasattr(module, "__all__")
    title = name.removeprefix("deltabias.")
    options = ["   :members:", "   :show-inheritance:"]
    if not listed:
        options.append("   :member-order: bysource")
    return "\n".join([title, "=" * len(title), "", f".. automodule:: {name}", *options, ""])


def write(app) -> None:
    """Write the pages; warn, and so fail under -W, for every public name without words."""
    wanted = {}
    for name in modules():
        wanted[FOLDER / f"{name.removeprefix('deltabias.')}.rst"] = page(name)
        for missing in undocumented(importlib.import_module(name)):
            log.warning("%s is public and has no docstring", missing)
    write_changed(FOLDER, wanted)


def write_changed(folder: Path, wanted: dict[Path, str]) -> None:
    """Write what differs and remove what is no longer wanted: a second build reads little again."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.iterdir():
        if path.is_file() and path not in wanted:
            path.unlink()


def inside(app, env, node, contnode):
    """A name of a module that is not for readers: shown as it is, if there is such a name."""
    target = node.get("reftarget", "")
    module, _, name = target.rpartition(".")
    if not module.startswith("deltabias") or module in modules():
        return None
    try:
        found = hasattr(importlib.import_module(module), name)
    except ImportError:
        return None
    return contnode if found else None


def setup(app):
    app.connect("missing-reference", inside)
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
