"""Kill a node of a Ray cluster amid an extraction: everything is done, and equal to the bit.

    python benchmarks/ray_kill.py VIDEO... [--nodes 2] [--cpus 1] [--short-side 128] [--flow]

Starts nodes with `ray start`, each a family of processes of its own on this machine, and runs
`vidkd extract-features` (or `extract-flow`) three times: without Ray, on the undisturbed cluster,
and on the cluster while one node and all its processes are ended by SIGKILL once a third of the
files are there. Compares every byte of the caches, and counts what was begun again. With one node
nothing is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vidkd.console import emit_table, log

RAY = Path(sys.executable).with_name("ray")
STORE = 100_000_000
"""Bytes of a node's object store; what is extracted does not pass through it here."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def family(pid: int) -> list[int]:
    """Return a process and all that it started, directly or not."""
    members = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                members += family(int(child))
    return members


def kill(node: subprocess.Popen[bytes]) -> None:
    members = family(node.pid)
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.wait()


@contextlib.contextmanager
def cluster(nodes: int, cpus: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Start nodes, the first of them the head; yield the address and the processes."""
    address = f"127.0.0.1:{free_port()}"
    common = ["--block", "--num-cpus", str(cpus), "--object-store-memory", str(STORE)]
    common += ["--node-ip-address", "127.0.0.1", "--disable-usage-stats"]
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        head = ["--head", "--port", address.split(":")[1], "--include-dashboard", "false"]
        head += ["--ray-client-server-port", str(free_port()), "--temp-dir", folder]
        try:
            for number in range(nodes):
                own = ["--address", address] if number else head
                command = [str(RAY), "start", *own, *common]
                output = (Path(folder) / f"node{number}").open("wb")
                started.append(subprocess.Popen(command, stdout=output, stderr=output))
                up = (Path(folder) / f"node{number}").read_bytes
                deadline = time.monotonic() + 180
                while b"Ray runtime started" not in up():
                    if started[-1].poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(f"a node did not start:\n{up().decode()}")
                    time.sleep(0.2)
            yield address, started
        finally:
            for node in reversed(started):
                kill(node)


def files(cache: Path) -> dict[str, bytes]:
    return {str(path.relative_to(cache)): path.read_bytes() for path in cache.rglob("*.h5")}


def extract(
    command: list[str],
    cache: Path,
    *where: str,
    count: int = 0,
    amid: Callable[[], None] | None = None,
) -> tuple[float, list[dict[str, Any]], str]:
    """Run the command, with ``amid`` when a third is done.

    Returns:
        Seconds, what it printed of each video, and what it told.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "vidkd", *command, "--cache", str(cache), "--json", *where],
            stdout=subprocess.PIPE,
            stderr=told,
        )
        if amid is not None:
            while process.poll() is None and len(list(cache.rglob("[!.]*.h5"))) < count // 3:
                time.sleep(0.1)
            amid()
        output, _ = process.communicate()
        seconds = time.perf_counter() - started
        told.seek(0)
        text = told.read().decode()
    if process.returncode or not output:
        raise SystemExit(f"the extraction ended with {process.returncode}:\n{text}")
    try:
        results = json.loads(output)
    except ValueError:
        raise SystemExit(f"is no JSON:\n{output.decode()}") from None
    assert {item["state"] for item in results} == {"done"}, text
    return seconds, results, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=1, help="of each node")
    parser.add_argument("--short-side", type=int, default=128)
    parser.add_argument("--flow", action="store_true", help="extract flow, not RGB features")
    chosen = parser.parse_args()
    # Nodes and command only speak to who knows this.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    small = ["--short-side", str(chosen.short_side)]
    if chosen.flow:
        command = ["extract-flow", *chosen.videos, *small]
    else:
        small += ["--crop", str(chosen.short_side // 16 * 14), "--stride", "16"]
        command = ["extract-features", *chosen.videos, "--modality", "rgb", *small]
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        caches = {name: Path(folder) / name for name in ("local", "undisturbed", "killed")}
        workers = str(chosen.nodes * chosen.cpus)
        seconds, *_ = extract(command, caches["local"], "--workers", workers)
        expected = files(caches["local"])
        rows.append(("local pool", f"{seconds:.1f}", len(expected), "", ""))
        log(str(rows[-1]))
        for name in ("undisturbed", "killed")[: 1 + (chosen.nodes > 1)]:
            with cluster(chosen.nodes, chosen.cpus) as (address, nodes):

                def disturb(nodes: list[subprocess.Popen[bytes]] = nodes) -> None:
                    kill(nodes.pop())

                amid = disturb if name == "killed" else None
                seconds, _, text = extract(
                    command, caches[name], "--cluster", address, count=len(expected), amid=amid
                )
            found = files(caches[name])
            equal = sum(found.get(key) == value for key, value in expected.items())
            again = text.count("its work is given to another")
            what = f"Ray, {chosen.nodes} nodes" + (", one killed" if name == "killed" else "")
            rows.append((what, f"{seconds:.1f}", len(found), equal, again))
            log(str(rows[-1]))
    emit_table("", ("", "seconds", "files", "equal to the local pool's", "begun again"), rows)


if __name__ == "__main__":
    main()
