"""Pulling a model from Debian's registry on loopback, against `curl` of the same bytes and `sha256sum`.

Both sides begin with nothing and end with a file whose digest is known; ours also syncs it and gives it its
name. Rounds are interleaved. Memory is the peak of the server that pulls, for this size and for a sixteenth
of it. Then the server is killed ten times at random moments of one pull, and what all of them together
fetched is counted by a proxy.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from llm_engine.models.manifests import MANIFEST_TYPE
from llm_engine.models.names import Name
from llm_engine.models.store import ModelStore

from tests.support.counting import counting
from tests.support.engine import EngineServer, start_engine
from tests.support.registries import docker_registry

MIB = 1 << 20
LLM_ENGINE = str(Path(sys.executable).with_name("llm-engine"))


def make_file(path: Path, size: int) -> str:
    """Random bytes; gives their digest."""
    chance, digest = random.Random(size), hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size // MIB):
            piece = chance.randbytes(MIB)
            digest.update(piece)
            file.write(piece)
    return f"sha256:{digest.hexdigest()}"


def upload(host: str, repository: str, body: Path | bytes, digest: str) -> int:
    connection = http.client.HTTPConnection(host)
    connection.request("POST", f"/v2/{repository}/blobs/uploads/")
    answer = connection.getresponse()
    answer.read()
    where = urlsplit(answer.headers["Location"])
    target = f"{where.path}?{where.query}&digest={digest}"
    size = len(body) if isinstance(body, bytes) else body.stat().st_size
    with body.open("rb") if isinstance(body, Path) else memoryview(body) as data:
        connection.request("PUT", target, data, {"Content-Length": str(size)})
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
    return size


def publish(host: str, repository: str, weights: Path, digest: str) -> None:
    config = b'{"model_format":"gguf","model_family":"llama"}\n'
    config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": config_digest,
            "size": upload(host, repository, config, config_digest),
        },
        "layers": [
            {
                "mediaType": "application/vnd.ollama.image.model",
                "digest": digest,
                "size": upload(host, repository, weights, digest),
            }
        ],
    }
    connection = http.client.HTTPConnection(host)
    raw = json.dumps(manifest).encode()
    connection.request("PUT", f"/v2/{repository}/manifests/latest", raw, {"Content-Type": MANIFEST_TYPE})
    assert connection.getresponse().status == 201


def pull(server: EngineServer, name: str) -> subprocess.Popen[bytes]:
    command = [LLM_ENGINE, "pull", "--insecure", name]
    env = {**os.environ, "OLLAMA_HOST": server.url}
    return subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)


def serve(folder: Path) -> EngineServer:
    return start_engine(folder / "models", folder / "log", HOME=str(folder))


def peak_memory(server: EngineServer) -> float:
    """MB, of the server's whole life."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024 / 1e6


def ours(folder: Path, name: str) -> tuple[float, float]:
    """Seconds and megabytes."""
    folder.mkdir()
    server = serve(folder)
    try:
        began = time.perf_counter()
        assert pull(server, name).wait() == 0
        return time.perf_counter() - began, peak_memory(server)
    finally:
        server.stop()
        shutil.rmtree(folder)


def peer(folder: Path, url: str, digest: str) -> float:
    file = folder / "curled"
    began = time.perf_counter()
    subprocess.run(["curl", "-sf", "-o", file, url], check=True)
    summed = subprocess.run(["sha256sum", file], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    assert summed.stdout.split()[0] == digest.removeprefix("sha256:")
    file.unlink()
    return seconds


def killed(folder: Path, registry: str, size: int, kills: int) -> float:
    """Bytes fetched in all, as a multiple of the size."""
    folder.mkdir()
    with counting(registry) as proxy:
        name = f"{proxy.host}/some/large"
        for moment in sorted(random.Random().uniform(0.02, 0.95) for _ in range(kills)):
            server = serve(folder)
            child = pull(server, name)
            assert proxy.wait_until(int(moment * size), 300)
            server.process.kill()
            server.process.wait()
            child.wait()
        server = serve(folder)
        assert pull(server, name).wait() == 0
        server.stop()
        store = ModelStore(folder / "models")
        model = store.resolve(Name.parse(name))
        assert all(store.blobs.verify(layer.digest) for layer in model.manifest.everything)
        shutil.rmtree(folder)
        return proxy.fetched / size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=2048, help="size of the model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    size = options.mib * MIB
    with tempfile.TemporaryDirectory() as name, docker_registry(Path(name)) as registry:
        folder = Path(name)
        weights = folder / "weights"
        for repository, count in (("some/small", size // 16), ("some/large", size)):
            digest = make_file(weights, count)
            publish(registry, repository, weights, digest)
            weights.unlink()
        url = f"http://{registry}/v2/some/large/blobs/{digest}"
        load = os.getloadavg()[0]
        rounds = []
        for number in range(options.rounds):
            seconds, memory = ours(folder / "ours", f"{registry}/some/large")
            theirs = peer(folder, url, digest)
            rounds.append((seconds, theirs, memory))
            print(f"round {number + 1}: pull {seconds:.1f} s, curl and sha256sum {theirs:.1f} s", flush=True)
        if rounds:
            seconds, theirs, memory = (statistics.median(column) for column in zip(*rounds, strict=True))
            _, small = ours(folder / "ours", f"{registry}/some/small")
            print(f"{options.mib} MiB, median of {len(rounds)}, load average at the start {load:.1f}")
            print(f"pull {seconds:.1f} s, curl and sha256sum {theirs:.1f} s, ratio {seconds / theirs:.2f}")
            print(f"peak memory of the server {memory:.0f} MB; for a sixteenth of the size {small:.0f} MB")
        if options.kills:
            fetched = killed(folder / "killed", registry, size, options.kills)
            print(f"fetched with {options.kills} kills: {fetched:.3f} times the size")


if __name__ == "__main__":
    main()
