"""What the paper's full design would take: from tokens a second to hours and money.

Arithmetic alone. One assumption carries it: the time that a token takes grows in proportion to the
number of a model's parameters, as its multiplications do (two operations a parameter and token).
It leaves out attention, which grows with the length of a text, and counts the embeddings of a small
model, which are only looked up; and it takes for granted that a model fits where it is to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date as Date
from pathlib import Path

import numpy as np
import pandas as pd

from emotion_concepts.corpus import DATA
from emotion_concepts.errors import BadInput

COLUMNS = ["hardware", "model", "parameters", "dtype", "tokens_per_second", "date", "how"]
EMOTIONS, TOPICS, STORIES = 171, 100, 12  # the paper's, and stories on each topic of each emotion
OPERATIONS = 2  # a parameter and token: one multiplication, one addition


def design_tokens(
    tokens_per_story: float,
    *,
    emotions: int = EMOTIONS,
    topics: int = TOPICS,
    stories: int = STORIES,
) -> int:
    """Return the tokens of a crossed design, the paper's by default.

    Raises
    ------
    BadInput
        For a number that is not above zero.

    Examples
    --------
    >>> design_tokens(100)
    20520000
    """
    _check(tokens_per_story=tokens_per_story, emotions=emotions, topics=topics, stories=stories)
    return round(emotions * topics * stories * tokens_per_story)


def measured(
    hardware: str,
    model: str,
    parameters: int,
    dtype: str,
    tokens_per_second: float,
    *,
    how: str,
    date: Date | None = None,
) -> pd.DataFrame:
    """Return a measured speed as one row of `COLUMNS`; of today without a date.

    >>> measured("CPU", "small", 10**8, "float32", 50.0, how="timed").tokens_per_second.item()
    50.0
    """
    _check(parameters=parameters, tokens_per_second=tokens_per_second)
    when = (date or Date.today()).isoformat()
    row = [hardware, model, int(parameters), dtype, float(tokens_per_second), when, how]
    return pd.DataFrame([row], columns=COLUMNS)


def from_peak(
    hardware: str,
    peak_tflops: float,
    utilisation: float,
    *,
    dtype: str = "bfloat16",
    source: str = "stated",
) -> pd.DataFrame:
    """Return the speed that hardware would reach at a share of its peak, as one such row.

    Parameters
    ----------
    peak_tflops : float
        10^12 operations a second in matrix products of this precision, dense.
    utilisation : float
        The share of it that a model reaches, above 0 and up to 1.
    source : str
        Where the peak is from, such as "data sheet" or "measured".

    Raises
    ------
    BadInput
        For a peak that is not above zero, or a share outside its range.

    Examples
    --------
    >>> round(from_peak("GPU", 100, 0.4).tokens_per_second.item())
    20000
    """
    _check(peak_tflops=peak_tflops, utilisation=utilisation)
    if utilisation > 1:
        raise BadInput(f"a utilisation of {utilisation} is more than all; give a share such as 0.4")
    parameters = 10**9
    speed = utilisation * peak_tflops * 1e12 / (OPERATIONS * parameters)
    how = f"{utilisation:.0%} of a peak of {peak_tflops:g} TFLOP/s ({source}), not run"
    return pd.DataFrame(
        [[hardware, "any", parameters, dtype, speed, "", how]],
        columns=COLUMNS,
    )


def read_throughput(path: Path | None = None) -> pd.DataFrame:
    """Return measured speeds, one a row, with `COLUMNS`.

    Parameters
    ----------
    path : Path, optional
        ``build/bench/throughput.csv`` of `python3 run.py bench`, or several such in one file;
        ``data/throughput.csv`` by default, which holds what was measured for this book.

    Raises
    ------
    BadInput
        For a file that is missing, lacks a column, or has a speed or size that is not above zero.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "throughput.csv")
    ...     measured("CPU", "small", 10**8, "float32", 50.0, how="timed").to_csv(path, index=False)
    ...     read_throughput(path)[["hardware", "model", "tokens_per_second"]]
      hardware  model  tokens_per_second
    0      CPU  small               50.0
    """
    path = Path(str(path or DATA / "throughput.csv"))
    try:
        found = pd.read_csv(path, keep_default_na=False)[COLUMNS]
        found = found.astype({"parameters": float, "tokens_per_second": float})
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path} holds no measured speeds ({error}); see {_BENCH}") from error
    for row in found.itertuples():
        _check(parameters=row.parameters, tokens_per_second=row.tokens_per_second)
    return found


def cost_table(
    throughput: pd.DataFrame,
    models: Mapping[str, float],
    tokens: float,
    *,
    price_per_hour: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Return what a number of tokens takes on each hardware with each model.

    Parameters
    ----------
    throughput : DataFrame
        Rows of `read_throughput`, `measured` or `from_peak`, joined by ``pd.concat``.
    models : {name: parameters}
    tokens : float
        Of `design_tokens`. For a design that the model writes as well, ask once for reading and
        once for writing, with speeds of each.
    price_per_hour : {hardware: price}, optional
        In any currency; hardware without a price has no cost.

    Returns
    -------
    DataFrame
        One row a speed and model: hardware, dtype, model, parameters, tokens_per_second, hours,
        cost, and basis: on what, and how, the speed was found.

    Raises
    ------
    BadInput
        If no speed is given, for a number that is not above zero, or a price of other hardware.

    Examples
    --------
    >>> speed = from_peak("GPU", 100, 0.4)
    >>> round(cost_table(speed, {"large": 2e9}, 3.6e7).hours.item(), 6)
    1.0
    """
    if throughput.empty:
        raise BadInput(f"no speed has been measured; give the result of {_BENCH}")
    prices = dict(price_per_hour or {})
    if strangers := sorted(prices.keys() - set(throughput.hardware)):
        known = ", ".join(sorted(set(throughput.hardware)))
        raise BadInput(f"no speed is known of {', '.join(strangers)}; there is one of {known}")
    _check(tokens=tokens)
    _check(**models)
    _check(**prices)
    rows = []
    for speed in throughput.itertuples():
        for model, parameters in models.items():
            rate = speed.tokens_per_second * speed.parameters / parameters
            hours = tokens / rate / 3600
            price = prices.get(speed.hardware, np.nan)
            basis = f"{speed.model}, {speed.parameters:.3g} parameters: {speed.how}"
            rows.append(
                [speed.hardware, speed.dtype, model, parameters, rate, hours, hours * price, basis]
            )
    columns = ["hardware", "dtype", "model", "parameters", "tokens_per_second", "hours", "cost"]
    return pd.DataFrame(rows, columns=[*columns, "basis"])


_BENCH = "`python3 run.py bench`, which writes build/bench/throughput.csv"


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (np.isfinite(value) and value > 0):
            raise BadInput(f"{name} of {value} cannot be; give a number above zero")
