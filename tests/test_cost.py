"""From tokens a second to hours and money."""

import json
import math
from datetime import date

import pandas as pd
import pytest

from emotion_concepts import cost
from emotion_concepts.corpus import DATA
from emotion_concepts.errors import BadInput

CPU = cost.measured("2 cores", "tiny", 10**8, "float32", 500.0, how="5 rounds")
GPU = cost.from_peak("a card", 1000, 0.4)
SIZES = {"tiny": 1e8, "8B": 8e9}


def test_the_papers_design_has_its_number_of_stories():
    told = json.loads((DATA / "paper.json").read_text())
    assert cost.design_tokens(1) == 205_200
    [paper] = [part["n_stories"] for part in told.values() if "n_stories" in part]
    assert paper["value"] == 205_200


def test_tokens_grow_with_every_side_of_the_design():
    assert cost.design_tokens(150.5, emotions=2, topics=3, stories=4) == 3612


def test_time_grows_in_proportion_to_parameters():
    table = cost.cost_table(CPU, SIZES, 1_800_000).set_index("model")
    assert table.hours["tiny"] == pytest.approx(1.0)
    assert table.hours["8B"] == pytest.approx(80.0)
    assert table.tokens_per_second["8B"] == pytest.approx(6.25)
    assert table.cost.isna().all()


def test_the_speed_at_a_share_of_the_peak_is_two_operations_a_parameter_and_token():
    [row] = cost.cost_table(GPU, {"8B": 8e9}, 1e6).itertuples()
    assert row.tokens_per_second == pytest.approx(0.4 * 1e15 / (2 * 8e9))
    assert row.hours == pytest.approx(1e6 / 25_000 / 3600)
    assert "40% of a peak of 1000 TFLOP/s (stated), not run" in row.basis


def test_a_price_an_hour_gives_a_cost_and_hardware_without_one_has_none():
    both = pd.concat([CPU, GPU])
    table = cost.cost_table(both, SIZES, 1_800_000, price_per_hour={"a card": 3.0})
    assert len(table) == 4 and table.cost.isna().tolist() == [True, True, False, False]
    priced = table[table.hardware == "a card"]
    assert priced.cost.tolist() == pytest.approx((3.0 * priced.hours).tolist())


def test_what_a_row_rests_on_is_told():
    [row] = cost.cost_table(CPU, {"8B": 8e9}, 1).itertuples()
    assert row.basis == "tiny, 1e+08 parameters: 5 rounds" and row.dtype == "float32"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: cost.design_tokens(0), "tokens_per_story of 0"),
        (lambda: cost.design_tokens(100, topics=-1), "topics of -1"),
        (lambda: cost.measured("a", "b", 0, "float32", 1, how=""), "parameters of 0"),
        (lambda: cost.measured("a", "b", 1, "float32", math.nan, how=""), "tokens_per_second"),
        (lambda: cost.from_peak("a", 100, 40), "utilisation of 40 is more than all.*share"),
        (lambda: cost.from_peak("a", 100, 0), "utilisation of 0"),
        (lambda: cost.from_peak("a", math.inf, 0.4), "peak_tflops of inf"),
        (lambda: cost.cost_table(CPU, {"8B": 0}, 1), "8B of 0"),
        (lambda: cost.cost_table(CPU, SIZES, 0), "tokens of 0"),
        (lambda: cost.cost_table(CPU[:0], SIZES, 1), "no speed has been measured.*run.py bench"),
        (
            lambda: cost.cost_table(CPU, SIZES, 1, price_per_hour={"a card": 3}),
            "no speed is known of a card; there is one of 2 cores",
        ),
        (
            lambda: cost.cost_table(CPU, SIZES, 1, price_per_hour={"2 cores": -1}),
            "2 cores of -1",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, told):
    with pytest.raises(BadInput, match=told):
        call()


def test_measured_speeds_come_back_from_their_file(tmp_path):
    path = tmp_path / "throughput.csv"
    speed = cost.measured("2 cores", "a/b", 7, "float32", 1.5, how="x, y", date=date(2026, 1, 2))
    speed.to_csv(path, index=False)
    found = cost.read_throughput(path)
    assert found.to_dict("records") == speed.to_dict("records")
    assert found.date[0] == "2026-01-02"


@pytest.mark.parametrize(
    "text",
    ["", "hardware,model\na,b\n", ",".join(cost.COLUMNS) + "\na,b,c,float32,1,,\n"],
)
def test_a_file_of_another_form_is_refused(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BadInput, match=r"t\.csv holds no measured speeds.*run\.py bench"):
        cost.read_throughput(tmp_path / "t.csv")


def test_a_missing_file_and_a_speed_of_nothing_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"none\.csv holds no measured speeds"):
        cost.read_throughput(tmp_path / "none.csv")
    CPU.assign(tokens_per_second=0.0).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(BadInput, match="tokens_per_second of 0"):
        cost.read_throughput(tmp_path / "t.csv")


def test_the_packaged_file_has_the_columns_and_says_how_each_speed_was_measured():
    found = cost.read_throughput()
    assert list(found.columns) == cost.COLUMNS
    assert (found[["hardware", "model", "dtype", "date", "how"]] != "").all(axis=None)
