"""The studies by name, in the order they are run."""

from validation import (
    default_over_history,
    derive_speed,
    design_numbers,
    false_alarms,
    matrix_cost,
    matrix_shares,
    precision,
    remainder_slopes,
    shampoo_training,
    spacing,
    steady_state,
    strategies,
    third_party,
)
from validation.study import Study

STUDIES: dict[str, Study] = {
    module.STUDY.name: module.STUDY
    for module in (
        design_numbers,
        steady_state,
        remainder_slopes,
        strategies,
        default_over_history,
        spacing,
        precision,
        derive_speed,
        matrix_shares,
        matrix_cost,
        shampoo_training,
        false_alarms,
        third_party,
    )
}
"""Name -> study."""
