"""The page on speed and cost says what the benchmarks measured, and nothing else."""

import json
import re

import pytest
import torch

import run
from bench import timing
from dodo import BENCHMARKS
from emotion_concepts import cost
from tools import speed

PAGE = (run.ROOT / "book" / "speed.md").read_text()


def test_every_benchmark_has_its_results_and_they_are_of_one_machine_and_model():
    reports = [json.loads((speed.RESULTS / f"{name}.json").read_text()) for name in BENCHMARKS]
    assert {path.stem for path in speed.RESULTS.glob("*.json")} == set(BENCHMARKS)
    assert {*BENCHMARKS} == {*speed.UNITS, "book"}
    for key in ("hardware", "model", "dtype", "threads"):
        assert len({report[key] for report in reports}) == 1, key


def test_the_page_names_what_there_is_and_types_no_number():
    named = set(re.findall(r"\{\{ (\w+) \}\}", PAGE))
    assert named == speed.substitutions().keys()
    assert not re.findall(r"\d", re.sub(r"\{\{.*?\}\}|float32|bfloat16|python3", "", PAGE))


def test_the_rate_in_the_table_of_costs_is_that_of_the_benchmark():
    reading = json.loads((speed.RESULTS / "extraction.json").read_text())
    rates = cost.read_throughput().set_index(["hardware", "dtype"]).tokens_per_second
    mine = rates[reading["hardware"], reading["dtype"]]
    assert mine == pytest.approx(reading["ways"][0]["per_second"])


def test_a_table_has_a_line_a_way_and_the_first_is_what_the_others_are_held_to():
    seconds = {"ours": [1.0, 2.0, 3.0], "theirs": [2.0, 2.0, 9.0]}
    rows = timing.compared(seconds, 100, {"ours": 0.0, "theirs": 0.25})
    assert rows[0]["per_second"] == 50 and rows[0]["ratio"] == 1
    assert (rows[1]["low"], rows[1]["ratio"], rows[1]["high"]) == (1, 2, 3)
    shown = speed._ways({"ways": rows}, "tokens a second").splitlines()
    assert shown[0] == "| way | tokens a second | ours, times as fast | difference |"
    assert shown[2:] == ["| ours | 50 | 1 | 0 |", "| theirs | 50 | 2.00 [1.00, 3.00] | 0.2 |"]


def test_the_time_of_the_book_is_the_sum_of_its_chapters():
    rows = [
        {"chapter": "01_a", "cold": [10.0, 30.0, 20.0], "warm": [2.0, 2.0, 2.0]},
        {"chapter": "02_b", "cold": [5.0, 5.0, 5.0], "warm": [1.0, 2.0, 9.0]},
    ]
    shown = speed._chapters(rows).splitlines()
    assert shown[0] == "| chapter | cold, seconds | warm, seconds |"
    assert shown[2:] == ["| 01_a | 20 | 2 |", "| 02_b | 5 | 2 |", "| all | 25 | 4 |"]


def test_the_benchmark_of_the_book_knows_every_chapter():
    report = json.loads((speed.RESULTS / "book.json").read_text())
    notebooks = sorted(path.stem for path in (run.ROOT / "notebooks").glob("*.ipynb"))
    assert [row["chapter"] for row in report["chapters"]] == notebooks
    assert all(min(row["cold"]) > 0 and min(row["warm"]) > 0 for row in report["chapters"])


def test_rounds_turn_so_that_each_way_comes_first(capsys):
    order = []
    ways = {name: lambda name=name: order.append(name) or name for name in "abc"}
    seconds, results = timing.interleaved(ways, 3)
    assert "".join(order) == "abcbcacab"
    assert all(len(took) == 3 for took in seconds.values())
    assert results == {"a": "a", "b": "b", "c": "c"}


def test_a_report_says_where_it_was_made(smollm, tmp_path, capsys):
    timing.write("reading", smollm, {"texts": 3}, tmp_path / "new")
    report = json.loads((tmp_path / "new" / "reading.json").read_text())
    assert report["model"] == smollm.identity.name and report["texts"] == 3
    assert report["parameters"] == sum(p.numel() for p in smollm.envoy._module.parameters())
    assert report["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("hours", [0.2, 60, 3000])
def test_a_duration_is_said_in_one_unit(hours):
    number, unit = speed.duration(hours).split()
    scale = {"minutes": 60, "hours": 1, "days": 1 / 24}[unit]
    assert float(number.replace(",", "")) == pytest.approx(hours * scale, abs=0.5)
