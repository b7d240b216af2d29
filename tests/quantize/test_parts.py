"""However many samples there are, a bounded number is kept, and what is held back is never fitted."""

import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.quantize import Recipe, quantize
from edgeq.quantize.parts import ENOUGH, LEAST, LEAST_HELD_OF, MOST, MOST_BYTES, Gatherer


class Made:
    """Samples made when asked for; knows how many of them were alive at once."""

    def __init__(self, count, shape=(1, 3, 6, 6)):
        self.count, self.shape = count, shape
        self.alive, self.most = weakref.WeakSet(), 0

    def __len__(self):
        return self.count

    def __iter__(self):
        for index in range(self.count):
            rng = np.random.default_rng(index)
            holder = rng.normal(size=self.shape).astype(np.float32).view(Watched)
            holder[..., 0] = index
            self.alive.add(holder)
            self.most = max(self.most, len(self.alive))
            yield {"x": holder}


class Watched(np.ndarray):
    """An array by identity, so that a set can hold it."""

    __hash__ = object.__hash__


@given(st.integers(1, 600))
def test_parts_are_disjoint_bounded_and_evenly_spaced(count):
    gatherer = Gatherer(Made(count, (1, 2)))
    assert sum(1 for _ in gatherer) == count
    parts = gatherer.parts()
    fitted, held = ([int(sample["x"][0, 0]) for sample in part] for part in (parts.fitted, parts.held))
    kept = sorted({*fitted, *held})
    assert len(kept) == min(count, MOST) == len(parts.all)
    assert kept[0] == 0
    assert np.ptp(np.diff(kept)) <= 1 if len(kept) > 1 else True
    assert parts.split == (len(kept) >= LEAST_HELD_OF)
    assert parts.working == (parts.all if len(kept) < ENOUGH else parts.fitted)
    judged = [int(sample["x"][0, 0]) for _, part in parts.folds for sample in part]
    assert len(judged) == len(set(judged))
    for some, others in parts.folds if parts.split else ():
        assert not {id(sample) for sample in some} & {id(sample) for sample in others}
        assert len(some) + len(others) == len(kept)
    if LEAST_HELD_OF <= len(kept) < ENOUGH:
        assert sorted(judged) == kept
    if parts.split:
        assert not {*fitted} & {*held}
        assert len(held) == pytest.approx(len(kept) / 4, abs=1)
    else:
        assert fitted == held


def test_large_samples_are_fewer():
    gatherer = Gatherer(Made(40, (1, MOST_BYTES // 4 // 20)))
    kept = sum(1 for _ in gatherer) and len(gatherer.parts().all)
    assert LEAST <= kept <= 20


@pytest.mark.parametrize("count", [100, 600])
def test_a_conversion_holds_no_more_samples_than_that(graph, rng, count):
    net = graph(
        """net (float[n,3,6,6] x) => (float[n,4,6,6] y) {
            a = Conv<kernel_shape=[1,1]>(x, w1, b1)
            r = Relu(a)
            y = Conv<kernel_shape=[1,1]>(r, w2, b2)
        }""",
        w1=rng.normal(size=(5, 3, 1, 1)).astype(np.float32),
        b1=rng.normal(size=5).astype(np.float32),
        w2=rng.normal(size=(4, 5, 1, 1)).astype(np.float32),
        b2=rng.normal(size=4).astype(np.float32),
    )
    samples = Made(count)
    done = quantize(net, samples, Recipe())
    assert done.plan.samples == count
    assert samples.most < 5  # what is kept is copied
