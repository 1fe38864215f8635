"""The measure of the emitted tests: units in the last place against fifty digits."""

import mpmath
import pytest
import torch

from deltabias.codegen.ulps import DIGITS, grid, worst_ulps

X = {"v": torch.logspace(-30, 10, 200, dtype=torch.float64)}


def exact_root(v):
    value = 1 / mpmath.sqrt(v)
    return value, value


def test_a_correctly_rounded_function_is_within_half_a_unit():
    # a division is; torch's vectorized square root is allowed a little more than half a unit
    ulps, _ = worst_ulps(lambda v: 1 / v, lambda v: (1 / v, 1 / v), X, {})
    assert 0.3 < ulps <= 0.5


@pytest.mark.parametrize("units", [3, 10, 1000])
def test_an_error_of_some_units_is_measured_as_such(units):
    def off(v):
        return (1 / v.sqrt()) * (1 + units * 2.0**-52)

    ulps, where = worst_ulps(off, exact_root, X, {})
    # a relative error of 2**-52 is one to two units, as the leading digits go from 1 to 2
    assert units - 2 <= ulps <= 2 * units + 2
    assert set(where) == {"v"}


def test_the_reference_sees_the_exact_inputs_and_scalars():
    def reference(v, eps):
        value = v + eps
        return value, abs(v) + abs(eps)

    good, _ = worst_ulps(lambda v, *, eps: v + eps, reference, X, {"eps": 0.1})
    assert good <= 0.5
    wrong, _ = worst_ulps(lambda v, *, eps: v + 0.1000001, reference, X, {"eps": 0.1})
    assert wrong > 1e6


def test_where_a_sum_cancels_the_size_of_its_terms_is_the_unit():
    x = {"a": torch.tensor([1.0 + 2**-40], dtype=torch.float64)}

    def reference(a):
        return a * a - 1 - 2 * mpmath.ldexp(1, -40), a * a + 1

    ulps, _ = worst_ulps(lambda a: a * a - 1 - 2.0**-39, reference, x, {})
    assert ulps <= 1


def test_what_is_not_finite_is_infinitely_wrong():
    ulps, where = worst_ulps(lambda v: v * float("nan"), exact_root, X, {})
    assert ulps == float("inf")
    assert where


def test_what_this_precision_cannot_hold_is_not_asked_of_it():
    x = {"v": torch.tensor([1e-30, 1.0], dtype=torch.float32)}

    def cube(v):
        return 1 / v**3, 1 / v**3  # 1e90 is beyond fp32

    ulps, _ = worst_ulps(lambda v: 1 / (v * v * v), cube, x, {})
    assert ulps <= 2


def test_a_single_precision_function_is_measured_in_its_own_units():
    x = {"v": X["v"].float()}
    ulps, _ = worst_ulps(lambda v: v.rsqrt(), exact_root, x, {})
    assert 0.3 < ulps < 3


def test_a_grid_has_every_corner_and_stays_inside():
    columns = grid({"g": (-5.0, -1e-3, 1e-3, 5.0), "v": (1e-30, 1e10)}, torch.float64, samples=50)
    pairs = set(zip(columns["g"].tolist(), columns["v"].tolist(), strict=True))
    assert {(g, v) for g in (-5.0, -1e-3, 1e-3, 5.0) for v in (1e-30, 1e10)} <= pairs
    assert len(columns["g"]) == 8 + 50
    assert columns["v"].min() >= 1e-30
    assert columns["v"].max() <= 1e10
    assert columns["g"].abs().max() <= 5
    assert (columns["g"] < 0).any()
    assert (columns["g"] > 0).any()


def test_a_grid_is_the_same_every_time_and_of_its_dtype():
    first, again = (grid({"v": (1e-3, 1.0)}, torch.float32, samples=20, seed=1) for _ in range(2))
    assert torch.equal(first["v"], again["v"])
    assert not torch.equal(first["v"], grid({"v": (1e-3, 1.0)}, torch.float32, samples=20)["v"])
    assert first["v"].dtype == torch.float32


def test_fifty_digits_are_used_and_given_back():
    seen = []

    def reference(v):
        seen.append(mpmath.mp.dps)
        return exact_root(v)

    worst_ulps(lambda v: v.rsqrt(), reference, {"v": X["v"][:2]}, {})
    assert set(seen) == {DIGITS}
    assert mpmath.mp.dps == 15
