"""Benchmarks: one machine, one run, rounds interleaved, medians; `python3 run.py bench` runs all.

Each module writes ``build/bench/NAME.json``. What stands in the book is in ``bench/results/``.
"""
