"""A Monte Carlo shared by processes: the same numbers, bit for bit, for any number of them."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from tests.distributed.launch import torchrun

from deltabias.truth import Gamma, NonFiniteSample, Part, Sampler, estimate

LAW = Sampler(Gamma(9, "1/9"), (4,))


class Meeting:
    """A gather over threads, which stand for processes."""

    def __init__(self, parts: int) -> None:
        self._barrier, self._brought = Barrier(parts, timeout=20), [None] * parts

    def gather_of(self, index: int):
        def gather(mine):
            self._brought[index] = mine
            self._barrier.wait()
            return list(self._brought)

        return gather


def shared(parts: int, function, replicates: int = 10_007, **options) -> list:
    """Every process's estimate, or the exception it ended with."""
    meeting = Meeting(parts)

    def run(index: int):
        part = Part(index, parts, meeting.gather_of(index))
        try:
            return estimate(function, LAW, replicates, seed=4, chunk=1000, part=part, **options)
        except Exception as error:
            return error

    with ThreadPoolExecutor(parts) as pool:
        return list(pool.map(run, range(parts)))


def inverse_of_mean(x):
    return np.stack([1 / x.mean(axis=1), x.mean(axis=1)], axis=1)


CONTROL = {"control": lambda x: x.mean(axis=1), "control_mean": 1.0}


@pytest.mark.parametrize("options", [{}, CONTROL], ids=["plain", "with a control"])
@pytest.mark.parametrize("parts", [2, 3, 4, 13])
def test_any_number_of_processes_gives_the_same_bits(parts, options):
    (alone,) = shared(1, inverse_of_mean, **options)
    for found in shared(parts, inverse_of_mean, **options):
        assert np.array_equal(found.mean, alone.mean)
        assert np.array_equal(found.covariance, alone.covariance)
        assert found.replicates == alone.replicates == 10_007


def test_the_shared_estimate_is_right():
    # 1/x under Gamma(36, 1/36): 36/35. n, seed and threshold fixed: false alarm rate 6e-5
    (found,) = shared(1, lambda x: 1 / x.mean(axis=1), replicates=40_000)
    assert abs(found.z(36 / 35)) < 4
    assert abs(found.z(1.0)) > 20


def test_every_process_draws_only_its_share():
    drawn = []

    def counting(x):
        drawn.append(len(x))
        return x.mean(axis=1)

    shared(2, counting, replicates=4000)
    assert drawn == [1000] * 4


def test_an_error_of_one_process_is_raised_by_all():
    def sometimes(x):
        values = x.mean(axis=1)
        if len(x) == 7:  # the last chunk, which is one process's
            values[0] = np.inf
        return values

    found = shared(3, sometimes)
    assert [type(error) for error in found] == [NonFiniteSample] * 3


def test_a_part_that_is_none_is_refused():
    with pytest.raises(ValueError, match="part 2 of 2 is none; count from 0"):
        Part(2, 2, list)


STUDY = """
import json, sys
import numpy as np
from deltabias.truth import Gamma, Sampler, estimate
from validation import ranks
from validation.tasks import run_tasks

def one(seed):
    found = estimate(lambda x: 1 / x, Sampler(Gamma(9, "1/9")), 5000, seed=seed)
    return [found.mean, found.standard_error]

with ranks.joined():
    tasks = run_tasks(one, [(seed,) for seed in range(5)])
    whole = estimate(lambda x: 1 / x, Sampler(Gamma(9, "1/9")), 20_000, seed=1, chunk=2000,
                     part=ranks.part())
    if ranks.place()[0] == 0:
        print(json.dumps([ranks.place()[1], tasks, whole.mean, whole.standard_error]))
"""


def test_studies_under_torchrun_have_the_numbers_of_one_process(tmp_path):
    (tmp_path / "study.py").write_text(STUDY)
    outputs = [torchrun(tmp_path / "study.py", ranks=ranks, limit=60) for ranks in (0, 2)]
    seen = [json.loads(out.strip().splitlines()[-1]) for out in outputs]
    assert [ranks for ranks, *_ in seen] == [1, 2]
    assert seen[0][1:] == seen[1][1:]
