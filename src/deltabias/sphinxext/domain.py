"""The Sphinx domain: which rule is described on which page, and how to refer to it."""

from collections.abc import Iterable, Iterator
from typing import ClassVar, NamedTuple

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.builders import Builder
from sphinx.domains import Domain, ObjType
from sphinx.environment import BuildEnvironment
from sphinx.roles import XRefRole
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

from deltabias.sphinxext.directives import (
    CodeDirective,
    DerivationDirective,
    RuleDirective,
    TermRole,
)

logger = logging.getLogger(__name__)


class Described(NamedTuple):
    """Where a rule is described."""

    docname: str
    anchor: str
    title: str


class DeltabiasDomain(Domain):
    """Rules of `deltabias`."""

    name = "deltabias"
    label = "deltabias"
    object_types: ClassVar = {"rule": ObjType("rule", "rule")}
    directives: ClassVar = {
        "rule": RuleDirective,
        "derivation": DerivationDirective,
        "code": CodeDirective,
    }
    roles: ClassVar = {"rule": XRefRole(warn_dangling=True), "term": TermRole()}
    initial_data: ClassVar = {"rules": {}}
    data_version = 1
    dangling_warnings: ClassVar = {
        "rule": "no page describes rule %(target)r; write '.. deltabias:rule:: %(target)s' on one, "
        "or refer to one that is described"
    }

    @property
    def rules(self) -> dict[str, Described]:
        """Where each rule is described, by its name."""
        return self.data["rules"]

    def note_rule(self, name: str, anchor: str, title: str, location: str) -> None:
        """Remember a description; a second one of the same name is a warning."""
        if name in self.rules:
            first = self.env.doc2path(self.rules[name].docname, base=False)
            logger.warning(
                "rule %r is described twice, first in %s; give one of the two the option "
                "':no-index:'.", name, first, location=location, type="deltabias", subtype="rule",
            )  # fmt: skip
            return
        self.rules[name] = Described(self.env.docname, anchor, title)

    def clear_doc(self, docname: str) -> None:
        """Forget what a page described, before it is read again."""
        for name in [n for n, d in self.rules.items() if d.docname == docname]:
            del self.rules[name]

    def merge_domaindata(self, docnames: Iterable[str], otherdata: dict) -> None:
        """Take over what another process read."""
        wanted = set(docnames)
        for name, described in otherdata["rules"].items():
            if described.docname in wanted:
                self.rules.setdefault(name, Described(*described))

    def resolve_xref(
        self,
        env: BuildEnvironment,
        fromdocname: str,
        builder: Builder,
        typ: str,
        target: str,
        node: pending_xref,
        contnode: Element,
    ) -> Element | None:
        """A link to the rule's description, if there is one."""
        if target not in self.rules:
            return None
        docname, anchor, title = self.rules[target]
        return make_refnode(builder, fromdocname, docname, anchor, contnode, title or target)

    def resolve_any_xref(
        self,
        env: BuildEnvironment,
        fromdocname: str,
        builder: Builder,
        target: str,
        node: pending_xref,
        contnode: Element,
    ) -> list[tuple[str, Element]]:
        """The same for the role `any`."""
        found = self.resolve_xref(env, fromdocname, builder, "rule", target, node, contnode)
        return [] if found is None else [("deltabias:rule", found)]

    def get_objects(self) -> Iterator[tuple[str, str, str, str, str, int]]:
        """For the inventory and the search."""
        for name, (docname, anchor, title) in self.rules.items():
            yield name, title or name, "rule", docname, anchor, 1
