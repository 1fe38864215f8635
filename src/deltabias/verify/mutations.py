"""Ways of getting a rule wrong, each as another rule. The rule is mutated, never the optimizer.

A mutation is found by its place in the mathematics, not in the text: the debias of an average is
any ``1 - beta**t``, eps is found beside a root or under it, a state by how it is fed.
"""

from dataclasses import dataclass, field

from deltabias.verify.interpret import Quirks
from deltabias.verify.mutate_averages import (
    averages_mutations,
    betas_mutations,
    debias_kept_mutations,
    debias_mutations,
    debias_outside_mutations,
    step_count_mutations,
)
from deltabias.verify.mutate_eps_and_decay import decay_mutations, eps_mutations
from deltabias.verify.mutate_gradients import gradient_mutations
from deltabias.verify.mutate_options import (
    amsgrad_mutations,
    branches_mutations,
    momentum_mutations,
    options_mutations,
    uses_mutations,
)
from deltabias.verify.mutate_steps import (
    learning_rate_mutations,
    memory_mutations,
    order_mutations,
    roots_mutations,
    sign_mutations,
    squares_mutations,
)
from deltabias.verify.step_rule import StepRule


@dataclass(frozen=True)
class Mutation:
    """A rule that is wrong in one known way.

    Parameters
    ----------
    name : what is wrong, in the words of a diagnosis
    rule : the mutated rule
    quirks : how it is run, where that is what is wrong
    """

    name: str
    rule: StepRule
    quirks: Quirks = field(default_factory=Quirks)


def mutations(rule: StepRule, *, likely: bool = False) -> list[Mutation]:
    """Every mutation that changes a rule, likelier ones first, none twice.

    `likely` leaves out what is rare or slow to find: pairs are made of the rest.
    """
    seen = {rule.steps}
    found = []
    for make in LIKELY if likely else FAMILIES:
        for name, steps in make(rule):
            steps = tuple(steps)
            if steps and steps not in seen:
                seen.add(steps)
                found.append(Mutation(name, rule.with_steps(steps)))
    return found


FAMILIES = (
    eps_mutations,
    decay_mutations,
    debias_mutations,
    amsgrad_mutations,
    momentum_mutations,
    averages_mutations,
    sign_mutations,
    gradient_mutations,
    options_mutations,
    branches_mutations,
    step_count_mutations,
    betas_mutations,
    debias_outside_mutations,
    roots_mutations,
    squares_mutations,
    order_mutations,
    learning_rate_mutations,
    memory_mutations,
    debias_kept_mutations,
    uses_mutations,
)


LIKELY = (
    eps_mutations,
    decay_mutations,
    debias_mutations,
    step_count_mutations,
    betas_mutations,
    sign_mutations,
    roots_mutations,
    order_mutations,
    amsgrad_mutations,
    momentum_mutations,
    options_mutations,
)


def quirk_mutations(rule: StepRule, groups: int) -> list[Mutation]:
    """Right formulas, run wrongly: counters, groups, schedules, missing gradients."""
    made = [
        Mutation("step counted once per parameter", rule, Quirks(count="visits")),
        Mutation("step counted for all parameters together", rule, Quirks(count="calls")),
        Mutation("lr schedule ignored", rule, Quirks(schedule=False)),
        Mutation("a missing gradient taken as zero", rule, Quirks(missing="zero")),
    ]
    if "weight_decay" in rule.hyper_names and "lr" in rule.hyper_names:
        quirks = Quirks(missing="decay")
        made.append(Mutation("a parameter without a gradient decays", rule, quirks))
    if groups > 1:
        made.append(Mutation("group hypers ignored", rule, Quirks(hypers_from=0)))
        first_lr = Quirks(hypers_from=0, only=("lr",), schedule=False)
        made.append(Mutation("the constructor's lr used throughout", rule, first_lr))
        made.append(Mutation("the last group's hypers used for all", rule, Quirks(hypers_from=-1)))
        for name in rule.hyper_names:
            quirks = Quirks(hypers_from=0, only=(name,))
            made.append(Mutation(f"group hypers ignored: {name}", rule, quirks))
    return made
