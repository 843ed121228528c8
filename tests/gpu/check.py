"""The GPU against the CPU: same greedy text and probabilities, everything offloaded, as many streams as the
card holds, each saying what it says alone, memory back after an unload.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import pynvml
from llm_engine.runner.messages import Done, Failed, GenerateRequest, LoadSpec, SamplingParams, Tokens
from llm_engine.scheduler.process import RunnerProcess

from tests.gpu.model import SEVEN_BILLION, build

# A card adds in another order and in 16 bits: two tokens closer than this may change places.
TOLERANCE = 0.05
SLACK = 64 << 20
"""What a driver may keep of a process that is gone."""


NUM_CTX, STREAMS, TOKENS = 2048, 16, 128
BESIDE = 2 << 30
"""What the driver, the buffers to compute in and the embeddings take beside weights and cache."""


def parallel(model: Path) -> int:
    """As many streams as the emptiest card has cells for, after the weights."""
    cards = (pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount()))
    free = max(int(pynvml.nvmlDeviceGetMemoryInfo(card).free) for card in cards)
    size = SEVEN_BILLION
    each = NUM_CTX * size.layers * size.width * 2 * 2
    count = (free - model.stat().st_size - BESIDE) // each
    if count < 1:
        raise SystemExit(f"error: {free / 1e9:.1f} GB of GPU memory are too few for this model")
    return min(count, STREAMS)


def used() -> int:
    """Bytes in use on all cards."""
    cards = (pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount()))
    return sum(int(pynvml.nvmlDeviceGetMemoryInfo(card).used) for card in cards)


async def answer(runner: RunnerProcess, prompt: str, count: int) -> list[Tokens]:
    request = GenerateRequest(
        prompt, max_tokens=count, logprobs=2, sampling=SamplingParams(temperature=0, ignore_eos=True)
    )
    events: list[Tokens] = []
    async for event in runner.generate(request):
        if isinstance(event, Failed):
            raise SystemExit(f"error: {event.kind}: {event.text}")
        if isinstance(event, Tokens):
            events.append(event)
        elif isinstance(event, Done) and event.usage.completion_tokens != count:
            raise SystemExit(f"error: {event.usage.completion_tokens} tokens came, not {count}")
    return events


def agree(gpu: list[Tokens], cpu: list[Tokens]) -> bool:
    """Equal in tokens and probabilities, up to a place where the best two were as good as equal and the other
    of them was taken."""
    ours, theirs = ([lp for event in side for lp in event.logprobs] for side in (gpu, cpu))
    for a, b in zip(ours, theirs, strict=True):
        if a.id != b.id:
            close = abs(b.top[0][2] - b.top[1][2]) < TOLERANCE
            return close and a.id in (b.top[0][0], b.top[1][0])
        if abs(a.logprob - b.logprob) > TOLERANCE:
            return False
    return True


async def check(model: Path) -> None:
    before = used()
    spec = LoadSpec(str(model), num_ctx=NUM_CTX, num_parallel=parallel(model))
    gpu = await RunnerProcess.start(spec)
    print(
        f"offloaded {gpu.info.size_vram / 1e9:.2f} of {gpu.info.size / 1e9:.2f} GB: {dict(gpu.info.memory)}"
    )
    if gpu.info.size_vram < 0.9 * gpu.info.size:
        raise SystemExit("error: not everything was offloaded")
    cpu = await RunnerProcess.start(LoadSpec(str(model), num_ctx=NUM_CTX, num_gpu=0))
    for prompt in ("Once upon a time", "def main():", "The capital"):
        if not agree(await answer(gpu, prompt, 24), await answer(cpu, prompt, 24)):
            raise SystemExit(f"error: GPU and CPU disagree on {prompt!r}")
    await cpu.stop()
    print("greedy text agrees with the CPU")
    alone = [await answer(gpu, f"{i} stream", TOKENS) for i in range(spec.num_parallel)]
    for streams in sorted({min(count, spec.num_parallel) for count in (1, 4, STREAMS)}):
        started = time.perf_counter()
        together = await asyncio.gather(*(answer(gpu, f"{i} stream", TOKENS) for i in range(streams)))
        print(f"{streams:3} streams: {streams * TOKENS / (time.perf_counter() - started):8.1f} tok/s")
        for number, said in enumerate(together):
            if not agree(said, alone[number]):
                raise SystemExit(f"error: stream {number} of {streams} says other things than alone")
    print("streams say what they say alone")
    await gpu.stop()
    deadline = time.monotonic() + 10
    while used() > before + SLACK:
        if time.monotonic() > deadline:
            raise SystemExit(f"error: {(used() - before) / 1e6:.0f} MB of GPU memory did not come back")
        await asyncio.sleep(0.1)
    print("memory came back after the unload")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.gpu.check", description=__doc__)
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--no-bench", action="store_true", help="only the checks")
    options = parser.parse_args()
    pynvml.nvmlInit()
    vocabulary = options.llama_server.parents[1] / "models" / "ggml-vocab-llama-spm.gguf"
    asyncio.run(check(build(vocabulary, options.models / "7b.gguf")))
    if options.no_bench:
        return 0
    from tests.bench.engine import bench_engine

    return bench_engine.run(options.llama_server, rounds=3, names=[], json_file=None)


if __name__ == "__main__":
    sys.exit(main())
