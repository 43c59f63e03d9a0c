"""Whether two scores trade off over directions, each direction counted once."""

import numpy as np
import pytest

from emotion_concepts.errors import BadInput
from emotion_concepts.experiments.sycophancy import tradeoff


def test_a_direction_may_be_turned_round_without_a_change():
    rng = np.random.default_rng(0)
    shifts = rng.normal(size=(8, 2))
    turned = shifts * rng.choice([-1, 1], size=(8, 1))
    lot = rng.normal(size=(10, 2))
    assert tradeoff(shifts, lot)["emotions"] == tradeoff(turned, lot)["emotions"]
    assert tradeoff(shifts, lot)["random"].value == pytest.approx(
        tradeoff(shifts, -lot)["random"].value
    )


def test_a_planted_trade_off_is_found_and_none_is_not():
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(2, 8))
    found = tradeoff(np.column_stack([x, -x + 0.2 * noise]), rng.normal(size=(10, 2)))
    assert found["emotions"].high < -0.8 and found["emotions"].p < 0.05
    assert found["difference"].high < 0
    lots = [tradeoff(rng.normal(size=(8, 2)), rng.normal(size=(10, 2))) for _ in range(60)]
    assert np.mean([lot["emotions"].p < 0.05 for lot in lots]) < 0.15
    assert np.mean([lot["difference"].high < 0 for lot in lots]) < 0.15


def test_a_trade_off_that_random_directions_share_is_no_finding():
    rng = np.random.default_rng(2)
    x = rng.normal(size=10)
    pool = np.column_stack([x, -x + 0.2 * rng.normal(size=10)])
    found = tradeoff(pool, pool)
    assert found["emotions"].high < 0 and found["difference"].low < 0 < found["difference"].high


def test_too_few_directions_are_refused():
    with pytest.raises(BadInput, match="three directions are needed"):
        tradeoff(np.ones((2, 2)), np.ones((10, 2)))
