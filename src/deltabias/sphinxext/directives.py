"""The directives: a rule, its derivation, its code; and the role for one term."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import sympy as sp
from docutils import nodes
from sphinx import addnodes
from sphinx.directives.code import container_wrapper
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.nodes import make_id

from deltabias.errors import DeltabiasError
from deltabias.explain.html import OPEN
from deltabias.explain.latex import in_pieces
from deltabias.explain.record import Explanation, Passage, Word
from deltabias.explain.text import drawn
from deltabias.notation.names import Name
from deltabias.notation.printing import display, latex, plain
from deltabias.sphinxext import options as known
from deltabias.sphinxext.folding import fold, fold_title, formula, inline_formula
from deltabias.sphinxext.subjects import (
    Rule,
    explanation_of,
    find_rule,
    formula_named,
    functions_of,
)

logger = logging.getLogger(__name__)

DRAWN_WIDTH = 70
"""Columns of a formula where it is drawn as text."""


class AboutRule(SphinxDirective):
    """Abstract: a directive whose argument is a rule; what is wrong is a warning, not a page."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = known.AnyOption()
    allowed: ClassVar[Mapping[str, known.Reader]]

    def run(self) -> list[nodes.Node]:
        """The nodes, or none and a warning."""
        try:
            given = known.read_options(self.options, self.allowed)
            rule = find_rule(
                self.env, self.arguments[0], given.pop("hyper", None), given.pop("named", None)
            )
            return self.show(rule, given)
        except (DeltabiasError, known.OptionError) as error:
            logger.warning(
                "%s: %s", self.name, error, location=self.get_location(), type="deltabias",
                subtype=self.name.rpartition(":")[2],
            )  # fmt: skip
            return []

    @abstractmethod
    def show(self, rule: Rule, given: dict) -> list[nodes.Node]:
        """What the directive puts in its place."""

    def display(self, expression: sp.Basic, names: Mapping[str, Name]) -> nodes.math_block:
        """A displayed formula, and what it is where LaTeX is not typeset."""
        text = "\n".join(drawn(expression, DRAWN_WIDTH))
        return formula(display(expression, names), text, self.env.docname)

    def named(self, node: nodes.Element, rule: Rule, part: str) -> None:
        """Give a node an id that the page has only once."""
        term = f"{rule.name}-{part}"
        node["ids"].append(make_id(self.env, self.state.document, "deltabias", term))
        self.state.document.note_explicit_target(node)


class RuleDirective(AboutRule):
    """``.. deltabias:rule::``: the update, its states, its sources, and a target to refer to."""

    allowed = known.RULE

    def show(self, rule: Rule, given: dict) -> list[nodes.Node]:
        """A description, as of any object that Sphinx knows."""
        no_index = given.get("no_index", False)
        signature = addnodes.desc_signature(rule.name, "", classes=[])
        signature += addnodes.desc_annotation("", "rule ")
        signature += addnodes.desc_name(rule.name, rule.name)
        content = addnodes.desc_content("", *self._content(rule))
        whole = addnodes.desc(
            "", signature, content, domain="deltabias", objtype="rule", desctype="rule",
            classes=["deltabias", "rule"],
        )  # fmt: skip
        whole["no-index"] = whole["noindex"] = no_index
        for old in ("no-index-entry", "no-contents-entry", "no-typesetting"):
            whole[old] = False
        if no_index:
            return [whole]
        self.named(signature, rule, "rule")
        self.env.domains["deltabias"].note_rule(
            rule.name, signature["ids"][0], rule.title, self.get_location()
        )
        index = addnodes.index(
            entries=[("single", f"{rule.name} (update rule)", signature["ids"][0], "", None)]
        )
        return [index, whole]

    def _content(self, rule: Rule) -> list[nodes.Node]:
        passages = explanation_of(rule).of_kind("update", "statistic", "source")
        shown: list[nodes.Node] = [nodes.paragraph("", rule.title)] if rule.title else []
        items = nodes.bullet_list("")
        for passage in passages:
            if passage.kind == "update":
                shown.append(self.display(passage.expression, rule.notation))
            else:
                label = "Sources: " if passage.kind == "source" else ""
                said = sentence((label, *passage.words), rule.notation)
                items += nodes.list_item("", nodes.paragraph("", "", *said))
        return [*shown, items]


class DerivationDirective(AboutRule):
    """``.. deltabias:derivation::``: the bias step by step, each step foldable in HTML."""

    allowed = known.DERIVATION

    def show(self, rule: Rule, given: dict) -> list[nodes.Node]:
        """A fold for every step that is asked for."""
        order = given.get("order", 1)
        explanation = explanation_of(rule, order, given.get("correction"))
        chosen = _chosen(explanation, given.get("steps"))
        opened = given.get("open", OPEN)
        return [self._fold(p, explanation, p.kind in opened) for p in chosen]

    def _fold(self, passage: Passage, explanation: Explanation, is_open: bool) -> fold:
        node = fold("", fold_title("", passage.title), open=is_open)
        node += nodes.paragraph("", "", *sentence(passage.words, explanation.names))
        if passage.expression is not None:
            node += self.display(passage.expression, explanation.names)
        self.named(node, explanation.rule, passage.id)
        return node


def _chosen(explanation: Explanation, wanted: tuple[str, ...] | None) -> list[Passage]:
    """Passages by kind, number or id, in the order asked for."""
    if wanted is None:
        return list(explanation.passages)
    found: list[Passage] = []
    for word in wanted:
        found += explanation.of_kind(word) or (explanation.find(word),)
    return list(dict.fromkeys(found))


class CodeDirective(AboutRule):
    """``.. deltabias:code::``: the generated module, or some of its functions."""

    allowed = known.CODE

    def show(self, rule: Rule, given: dict) -> list[nodes.Node]:
        """A literal block of Python."""
        source = functions_of(rule, given.get("function"))
        block = nodes.literal_block(source, source, language="python")
        block["linenos"] = given.get("linenos", False)
        self.set_source_info(block)
        if caption := given.get("caption"):
            return [container_wrapper(self, block, caption)]
        return [block]


def sentence(words: tuple[Word, ...], names: Mapping[str, Name]) -> list[nodes.Node]:
    """Text and inline formulas; Greek letters are formulas, for TeX engines that lack them."""
    found: list[nodes.Node] = []
    for word in words:
        if isinstance(word, str):
            for piece, math in in_pieces(word):
                found.append(inline_formula(math, piece) if math else nodes.Text(piece))
        else:
            found.append(inline_formula(latex(word, names), plain(word)))
    return found


class TermRole(SphinxRole):
    """``:deltabias:term:`RULE:NAME```: a term of a bias, ``bias`` or ``update``, inline."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The formula; the text as it was typed where it is wrong."""
        try:
            return [self._formula()], []
        except DeltabiasError as error:
            logger.warning(
                "%s: %s", self.name, error, location=self.get_location(), type="deltabias",
                subtype="term",
            )  # fmt: skip
            return [nodes.literal(self.rawtext, self.text)], []

    def _formula(self) -> nodes.math:
        subject, colon, name = self.text.rpartition(":")
        if not colon:
            raise DeltabiasError(
                f"{self.text!r} names no term; write RULE:NAME, such as adamw:coupling."
            )
        rule = find_rule(self.env, subject)
        expression = formula_named(rule, name.strip())
        return inline_formula(latex(expression, rule.notation), plain(expression))
