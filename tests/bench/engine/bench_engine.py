"""`make bench`: our engine and llama-server, in turn, round by round; medians and
ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gguf
import psutil

from tests.bench.engine import client, model
from tests.bench.engine.report import Results, report
from tests.bench.engine.scenarios import SCENARIOS, Scenario
from tests.bench.engine.servers import Engine, Launch, LlamaServer, Running
from tests.bench.engine.words import Words

ROOT = Path(__file__).resolve().parents[3]


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("STACKCTL_CACHE") or f"{base}/stackctl") / "bench"


async def measure(
    launch: Launch, scenarios: list[Scenario], words: Path, seed: int, log: Path
) -> dict[str, float]:
    """All scenarios on one fresh server, in order, and what the server itself costs. What fails is missing,
    and costs nothing of what was measured otherwise."""
    found: dict[str, float] = {}
    with Running(launch, log) as server, failure_told(launch.name, "start"):
        await server.ready()
        embedding = all(scenario.embedding for scenario in scenarios)
        if not embedding:
            hello = await client.chat(server.port, [{"role": "user", "content": "hello"}], 2)
            found["load"] = hello.started + hello.first - server.started
            found["idle"] = await server.idle()
        else:
            await client.fetch(server.port, "POST", "/v1/embeddings", {"model": "bench", "input": ["hello"]})
        for scenario in scenarios:
            with failure_told(launch.name, scenario.name):
                found[scenario.name] = await scenario.run(server.port, Words(words, seed))
                print(
                    f"  {launch.name:>12} {scenario.name:<8} {found[scenario.name]:10.2f}",
                    file=sys.stderr,
                    flush=True,
                )
        if not embedding:
            found["memory"] = server.memory()
    return found


@contextlib.contextmanager
def failure_told(side: str, what: str) -> Iterator[None]:
    """A server that answers wrongly, hangs up or is gone fails what was being measured, not the benchmark."""
    try:
        yield
    except (client.BadReply, OSError, EOFError, psutil.Error) as error:
        print(f"  {side:>12} {what:<8} failed: {error!r}", file=sys.stderr, flush=True)


def run(program: Path, rounds: int, names: list[str], json_file: Path | None) -> int:
    """Measure, print the table; 0 if all was measured and all that is asked for was reached."""
    chosen = [s for s in SCENARIOS if not names or s.name in names]
    vocabulary = program.parents[1] / "models" / "ggml-vocab-llama-spm.gguf"
    folder = cache_folder()
    results: Results = {}
    pairs: list[tuple[list[Scenario], list[Launch]]] = []
    if talking := [s for s in chosen if not s.embedding]:
        path = model.build(vocabulary, folder / "talk.gguf")
        engine = Engine(folder / "talk-store")
        engine.create(path)
        pairs.append((talking, [LlamaServer(program, path), engine]))
    if embedding := [s for s in chosen if s.embedding]:
        path = model.build(vocabulary, folder / "vectors.gguf", pooling=gguf.PoolingType.MEAN)
        engine = Engine(folder / "vectors-store")
        engine.create(path)
        pairs.append((embedding, [LlamaServer(program, path, embedding=True), engine]))
    for round_ in range(rounds):
        print(f"round {round_ + 1} of {rounds}", file=sys.stderr)
        for scenarios, launches in pairs:
            # Who goes first changes, so neither always meets the warmer machine.
            for launch in launches if round_ % 2 == 0 else launches[::-1]:
                log = folder / f"{launch.name}.log"
                found = asyncio.run(measure(launch, scenarios, vocabulary, round_, log))
                for name, value in found.items():
                    results.setdefault(name, {}).setdefault(launch.name, []).append(value)
    good = report(results, chosen, rounds)
    if json_file:
        json_file.write_text(json.dumps({"schema": "bench-engine/1", "results": results}, indent=1))
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench_engine", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="comma-separated names of scenarios")
    parser.add_argument("--json", type=Path, help="write all measurements to this file")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name]
    build = subprocess.run([ROOT / "scripts/llama-server"], check=True, text=True, stdout=subprocess.PIPE)
    return run(Path(build.stdout.strip()), options.rounds, names, options.json)


if __name__ == "__main__":
    sys.exit(main())
