"""Rows that are chosen evenly: as many as asked for, none twice."""

import numpy as np
import pandas as pd
import pytest

from emotion_concepts.errors import BadInput
from emotion_concepts.experiments.blocks import evenly


@pytest.mark.parametrize("size", [1, 2, 7, 24, 64])
def test_as_many_rows_come_as_were_asked_for_in_order_and_none_twice(size):
    for n in range(1, size + 1):
        chosen = evenly(range(size), n)
        assert len(chosen) == n and chosen[0] == 0
        assert n == 1 or chosen[-1] == size - 1
        assert len(set(np.diff(chosen))) <= 2 and (np.diff(chosen) > 0).all()


def test_tables_stay_tables_and_keep_their_index():
    table = pd.DataFrame({"x": list("abcde")}, index=range(10, 15))
    assert evenly(table, 3).index.tolist() == [10, 12, 14]
    assert evenly(table.x, 2).tolist() == ["a", "e"]
    assert evenly(table.x.unique(), 2) == ["a", "e"]


@pytest.mark.parametrize("n", [0, 6])
def test_no_rows_and_more_than_there_are_are_refused(n):
    with pytest.raises(BadInput, match="ask for 1 to 5"):
        evenly(range(5), n)
