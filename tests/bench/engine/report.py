"""The table of a benchmark, and whether it is a good one: measured on both sides in every round, and as
fast as is asked for.
"""

from __future__ import annotations

import statistics

from tests.bench.engine.scenarios import Scenario

Results = dict[str, dict[str, list[float]]]
"""By row and side: one figure per round in which it could be measured."""
SIDES = ("engine", "llama-server")


def report(results: Results, scenarios: list[Scenario], rounds: int) -> bool:
    """Print the table; whether nothing is missing in it and every ratio that is asked for was reached."""
    rows = [(s.name, s.unit, s.higher, s.wanted, s.what) for s in scenarios]
    if any(not scenario.embedding for scenario in scenarios):
        rows += [
            ("load", "s", False, None, "start of the server to the first token"),
            ("memory", "MB", False, None, "resident after these loads"),
            ("idle", "% CPU", False, None, "with the model loaded and nothing to do"),
        ]
    good = bool(rows)
    print(f"{'':10}{'engine':>12}{'llama-server':>14}{'ratio':>8}{'wanted':>9}  unit")
    for name, unit, higher, wanted, what in rows:
        sides = [results.get(name, {}).get(side, []) for side in SIDES]
        missing = [
            f"{side} in {rounds - len(have)} of {rounds} rounds"
            for side, have in zip(SIDES, sides, strict=True)
            if len(have) < rounds
        ]
        if missing:
            good = False
            what += f" (failed: {', '.join(missing)})"
        if not all(sides):
            print(f"{name:10}{'not measured':>43}{'':10}  {unit:8} {what}")
            continue
        ours, theirs = (statistics.median(side) for side in sides)
        ratio = ours / theirs if theirs else float("nan")
        sign = "" if wanted is None else f"{'>=' if higher else '<='} {wanted}"
        good &= wanted is None or (ratio >= wanted if higher else ratio <= wanted)
        print(f"{name:10}{ours:12.2f}{theirs:14.2f}{ratio:8.2f}{sign:>9}  {unit:8} {what}")
    return good
