"""The same checks as tests; the plugin of deltabias brings the fixtures."""

import pytest
from my_optimizer import MyAdamW
from my_update import corrected, plug_in


def test_it_computes_adamw(check_optimizer):
    check_optimizer(MyAdamW, "adamw", histories=10, features=False)


def test_the_correction_does_what_it_claims(check_bias):
    check_bias(corrected, "x**(-1/2)", law="two_point", microbatches=8, claim=2)


def test_without_it_the_check_fails(check_bias):
    with pytest.raises(AssertionError, match="fail"):
        check_bias(plug_in, "x**(-1/2)", law="two_point", microbatches=8, claim=2)
