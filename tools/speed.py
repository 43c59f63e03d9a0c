"""The tables of the page on speed and cost, from what `python3 run.py bench` measured.

`bench/results/` holds the reports of one machine, ``data/throughput.csv`` speeds of any. Nothing
here is typed but the hardware that was not at hand, with its source.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pandas as pd

from emotion_concepts import cost

RESULTS = Path(__file__).resolve().parents[1] / "bench" / "results"
SIZES = {"0.5 billion": 0.5e9, "7 billion": 7e9, "27 billion": 27e9, "70 billion": 70e9}
# NVIDIA's data sheet of the H100 SXM: bfloat16 tensor cores, dense; the share is an assumption
H100 = cost.from_peak("one H100 (reckoned)", 989, 0.4, source="data sheet")
UNITS = {
    "extraction": "tokens a second",
    "generation": "new tokens a second",
    "options": "options a second",
    "steering": "directions a second",
    "monitor": "new tokens a second",
}


def substitutions(folder: Path = RESULTS) -> dict[str, str]:
    """Return {name: Markdown} for the page: a table a benchmark, and what stands in sentences."""
    reports = {name: json.loads((folder / f"{name}.json").read_text()) for name in UNITS}
    found = {f"speed_{name}": _ways(report, UNITS[name]) for name, report in reports.items()}
    reading, choices, steered = (reports[name] for name in ("extraction", "options", "steering"))
    begun = choices["beginnings"]
    growth = pd.DataFrame(reading["growth"])
    growth["rate"] = growth.tokens / growth.seconds
    tokens = reading["real_tokens"] / reading["texts"]
    speeds = pd.concat([cost.read_throughput(), H100])
    book = json.loads((folder / "book.json").read_text())
    hours = cost.cost_table(speeds, SIZES, cost.design_tokens(tokens))
    wide = hours.pivot(index="model", columns=["hardware", "dtype"], values="hours")[
        hours[["hardware", "dtype"]].drop_duplicates().itertuples(index=False, name=None)
    ].loc[list(SIZES)]
    return found | {
        "speed_hardware": reading["hardware"],
        "speed_date": reading["date"],
        "speed_model": reading["model"],
        "speed_dtype": reading["dtype"],
        "speed_threads": reading["threads"],
        "speed_texts": reading["texts"],
        "speed_prompts": choices["prompts"],
        "speed_options_each": choices["options"],
        "speed_begun": begun["prompts"],
        "speed_beginnings": _ways(begun, "prompts a second"),
        "speed_directions": steered["directions"],
        "speed_steered_options": steered["options"],
        "speed_below": steered["below"],
        "speed_layers": steered["layers"],
        "speed_padding": f"{100 * (reading['padded_per_real'] - 1):.1f}",
        "speed_gflops": f"{reading['gflops_library']:.0f}",
        "speed_peak": f"{reading['gflops_matrix_product']:.0f}",
        "speed_share": f"{100 * reading['gflops_library'] / reading['gflops_matrix_product']:.0f}",
        "speed_growth": table(
            ["texts", "tokens", "seconds", "tokens a second", "peak memory, MiB"],
            [
                [
                    f"{r.texts}",
                    f"{r.tokens:,}",
                    f"{r.seconds:.1f}",
                    f"{r.rate:.0f}",
                    f"{r.peak:.0f}",
                ]
                for r in growth.rename(columns={"peak_mib": "peak"}).itertuples()
            ],
        ),
        "speed_recipe": table(
            ["emotions", "seconds"],
            [[f"{row['emotions']}", f"{row['seconds']:.2f}"] for row in reading["recipe"]],
        ),
        "speed_profile": book["profile"],
        "speed_book": _chapters(book["chapters"]),
        "cost_tokens": f"{tokens:.0f}",
        "cost_design": f"{cost.design_tokens(tokens):,}",
        "cost_hours": table(
            ["parameters", *(f"{machine}, {dtype}" for machine, dtype in wide.columns)],
            [
                [size, *map(duration, row)]
                for size, row in zip(wide.index, wide.values, strict=True)
            ],
        ),
        "cost_basis": "; ".join(f"{row.hardware}: {row.how}" for row in speeds.itertuples()),
    }


def _ways(report: dict, unit: str) -> str:
    """Return the ways of one benchmark beside each other."""
    rows = []
    for number, row in enumerate(report["ways"]):
        ratio = f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" if number else "1"
        rows.append([row["way"], f"{row['per_second']:.3g}", ratio, f"{row['difference']:.1g}"])
    first = report["ways"][0]["way"]
    return table(["way", unit, f"{first}, times as fast", "difference"], rows)


def _chapters(rows: list[dict]) -> str:
    """Return the median seconds of each chapter, and of all together, cold and warm."""
    took = pd.DataFrame(rows).set_index("chapter").map(statistics.median)
    took.loc["all"] = took.sum()
    shown = [[name, *(f"{number:.0f}" for number in row)] for name, *row in took.itertuples()]
    return table(["chapter", *(f"{state}, seconds" for state in took.columns)], shown)


def duration(hours: float) -> str:
    """Return hours in the unit that a reader would use.

    >>> duration(0.5), duration(1.2), duration(1000)
    ('30 minutes', '1 hour', '42 days')
    """
    number, unit = (60 * hours, "minute") if hours < 1 else (hours, "hour")
    if hours >= 100:
        number, unit = hours / 24, "day"
    return f"{number:,.0f} {unit}{'' if f'{number:.0f}' == '1' else 's'}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, its first column left, the others right."""
    line = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, line, *rows])
