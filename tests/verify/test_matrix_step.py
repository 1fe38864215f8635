"""Optimizers of matrices: the direction is the rule's, and a wrong root or a basis shows."""

import pytest
import torch

from deltabias.errors import RuleError
from deltabias.optim import Muon, Shampoo
from deltabias.rules import get_rule
from deltabias.verify import check_optimizer, verify_target
from deltabias.verify.matrix_step import check_matrix_optimizer, mistakes

PLAIN = {"correction": "plug_in"}


class Diagonal(torch.optim.Optimizer):
    """Shampoo with the diagonals of its factors: right on diagonal gradients alone."""

    def __init__(self, params, lr=0.1, damping=1e-12):
        super().__init__(params, {"lr": lr, "damping": damping})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                left, right = p.grad.square().sum(1), p.grad.square().sum(0)
                state["left"] = state.get("left", 0) + left
                state["right"] = state.get("right", 0) + right
                scale = state["left"][:, None] ** 0.25 * state["right"] ** 0.25
                p.sub_(group["lr"] * p.grad / scale)


class NotFinite(Diagonal):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(float("nan"))


class Still(Diagonal):
    def step(self, closure=None):
        pass


@pytest.mark.parametrize(
    ("make", "rule", "arguments", "memory"),
    [
        (Shampoo, "shampoo", PLAIN, "averages of gradients and factors"),
        (Shampoo, "shampoo", {**PLAIN, "grafting": "adam"}, "averages"),
        (Shampoo, "shampoo", {**PLAIN, "memory": "sum", "betas": (0.0, 0.9)}, "totals"),
        (Shampoo, "shampoo_one_sided", {**PLAIN, "sides": "left"}, "averages"),
        (Muon, "muon_polar", {"polar": "exact"}, "Nesterov"),
        (torch.optim.Muon, "muon", {}, "Nesterov"),
        (torch.optim.Muon, "muon", {"nesterov": False}, "averages of gradients"),
    ],
)
def test_a_right_optimizer_passes_and_its_memory_is_named(make, rule, arguments, memory):
    report = check_optimizer(make, rule, hypers=arguments)
    assert report.verdict == "pass", str(report)
    assert memory in report.named("direction").detail


@pytest.mark.parametrize(
    ("arguments", "diagnosis"),
    [
        ({"root": 2}, "wrong root: 2"),
        ({"root": 8}, "wrong root: 8"),
        ({"sides": "left"}, "the second factor is missing, and the root is 2"),
        ({"sides": "right", "root": 4}, "the first factor is missing"),
    ],
)
def test_a_wrong_optimizer_is_rejected_and_says_what_is_wrong(arguments, diagnosis):
    report = check_optimizer(Shampoo, "shampoo", hypers={**PLAIN, **arguments})
    assert report.verdict == "fail"
    assert report.named("direction").diagnosis == diagnosis


def test_what_is_right_on_diagonal_matrices_alone_is_seen_by_its_basis():
    report = check_matrix_optimizer(Diagonal, get_rule("shampoo"))
    assert report.named("direction").verdict == "fail"
    assert report.named("left rotation").diagnosis == "the rows' basis matters"
    assert report.named("right rotation").verdict == "fail"
    assert report.named("sign flip").verdict == "pass"


def test_adamw_is_not_shampoo_and_sgd_is_not_muon():
    assert check_optimizer(torch.optim.AdamW, "shampoo").verdict == "fail"
    assert check_optimizer(torch.optim.SGD, "muon").verdict == "fail"


def test_a_corrected_step_is_not_the_plug_ins():
    report = check_optimizer(Shampoo, "shampoo", hypers={"betas": (0.9, 0.95)})
    assert report.named("direction").verdict == "fail"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (NotFinite, "not finite"),
        (Still, "moves"),
        (lambda params, **_: object(), ""),
        (lambda params: 1 / 0, ""),
    ],
)
def test_a_bad_target_is_an_error_and_never_a_pass(make, says):
    report = check_optimizer(make, "shampoo")
    assert report.verdict == "error"
    assert says in report.checks[-1].detail


def test_options_of_elementwise_checks_are_refused():
    with pytest.raises(RuleError, match="rule of matrices"):
        check_optimizer(torch.optim.Muon, "muon", histories=5)


def test_every_mistake_is_another_update():
    rule = get_rule("shampoo")
    found = dict(mistakes(rule))
    assert len(found) > 15
    assert rule.update not in found.values()


def test_a_typed_rule_and_the_command_line_reach_the_same_check():
    typed = "inv_root(L + damping*I, 4)*M*inv_root(R + damping*I, 4)"
    assert check_optimizer(Shampoo, typed, hypers=PLAIN).verdict == "pass"
    outcome = verify_target("torch.optim:Muon", "muon")
    assert outcome.report.verdict == "pass", outcome.printed
    assert outcome.report.checks[0].name == "direction"


def test_a_rule_that_is_singular_on_such_gradients_is_an_error_that_says_so():
    report = check_optimizer(Shampoo, "inv_root(L, 4)*M*inv_root(R, 4)", hypers=PLAIN)
    assert report.verdict == "error"
    assert "pass a damping" in report.named("rule").detail
