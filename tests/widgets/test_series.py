"""Curves: what is kept of them when they grow long, go back, or break."""

import math
import struct

from nbtune_widgets.series import Curve, pack, smooth, thin


def test_a_peak_of_one_step_survives_thinning_to_a_hundredth():
    ys = [1.0] * 100_000
    ys[54_321] = 9.0
    xs, kept = thin(range(100_000), ys, 1000)
    assert len(xs) <= 1000
    assert max(kept) == 9.0
    assert (xs[0], xs[-1]) == (0, 99_999)
    assert list(xs) == sorted(set(xs))


def test_a_short_curve_is_not_touched_by_thinning():
    assert thin([1, 2, 3], [3.0, 2.0, 1.0], 300) == ([1, 2, 3], [3.0, 2.0, 1.0])


def test_a_loss_that_became_nan_does_not_break_thinning():
    xs, ys = thin(range(5000), [2.0] * 2500 + [math.nan] * 2500, 100)
    assert len(xs) <= 100
    assert 2.0 in ys
    assert math.isnan(ys[-1])


def test_steps_done_again_after_a_resume_replace_the_old_ones():
    curve = Curve()
    assert all(curve.add(step, 1.0) for step in range(10))
    assert not curve.add(5, 0.5)
    assert curve.add(6, 0.4)
    assert list(curve.xs) == [0, 1, 2, 3, 4, 5, 6]
    assert curve.last == 0.4


def test_smoothing_leaves_a_straight_line_where_it_is_because_it_does_not_lag():
    line = [float(index) for index in range(200)]
    assert all(abs(one - other) < 0.01 for one, other in zip(smooth(line)[60:140], line[60:140], strict=True))


def test_smoothing_keeps_gaps_and_does_not_spread_them():
    out = smooth([1.0, math.nan, 1.0, math.inf, 1.0])
    assert math.isnan(out[1])
    assert [out[0], out[2], out[4]] == [1.0, 1.0, 1.0]


def test_points_are_packed_as_little_endian_doubles_with_their_lengths_first():
    packed = pack(7, [([1, 2], [0.5, 0.25]), ([], [])])
    assert struct.unpack("<7d", packed) == (7, 2, 0, 1, 2, 0.5, 0.25)
