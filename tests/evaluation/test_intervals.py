import numpy as np
import pytest

from pdesurrogate.evaluation.intervals import bootstrap_interval


@pytest.mark.parametrize("count", [4, 8, 16, 64])
def test_the_interval_covers_the_mean_about_as_often_as_it_says(count):
    samples = np.random.default_rng(1).normal(size=(count, 1500))
    low, high = bootstrap_interval(samples)
    covered = ((low < 0) & (high > 0)).mean()
    # 1500 intervals leave a standard error of 0.6 %; few samples and equal draws for all of them leave some more.
    assert covered == pytest.approx(0.95, abs=0.03)


def test_skewed_samples_have_a_skewed_interval_and_levels_nest():
    samples = np.random.default_rng(2).exponential(size=(30, 1))
    low, high = bootstrap_interval(samples)
    narrow = bootstrap_interval(samples, level=0.5)
    assert low < narrow[0] < samples.mean() < narrow[1] < high
    assert high - samples.mean() > samples.mean() - low


def test_single_and_missing_values_have_no_interval():
    assert np.isnan(bootstrap_interval(np.ones((1, 3)))).all()
    low, high = bootstrap_interval(np.array([[1.0, np.nan], [2.0, 1.0], [3.0, np.inf]]))
    assert np.isfinite([low[0], high[0]]).all()
    assert np.isnan([low[1], high[1]]).all()
    assert np.ptp(bootstrap_interval(np.full((5,), 3.0))) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="at least one trajectory"):
        bootstrap_interval(np.ones((0, 2)))
    with pytest.raises(ValueError, match="level between 0 and 1"):
        bootstrap_interval(np.ones(3), level=1.0)
