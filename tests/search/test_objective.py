"""The schedule of the entropy weight."""

import math

import pytest

from quantnas_ext.search.objective import entropy_weight


def test_entropy_weight_follows_the_papers_schedule() -> None:
    n, maximum = 12, 0.5
    quarter = 3
    for t in range(n):
        factor = 0.0 if t < quarter else math.log(t - quarter + 2) / math.log(n - quarter + 1)
        assert entropy_weight(maximum, t, n) == pytest.approx(maximum * t / (n - 1) * factor)
    assert entropy_weight(maximum, n - 1, n) == pytest.approx(maximum)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20])
def test_entropy_weight_rises_between_zero_and_its_maximum_also_within_epochs(n: int) -> None:
    weights = [entropy_weight(1.0, step / 10, n) for step in range(10 * n)]
    assert weights == sorted(weights)
    assert 0 <= weights[0] and weights[-1] == pytest.approx(1.0)
