"""Files in an S3 server of this machine: what reading them costs, and a cache that is interrupted.

    python benchmarks/storage.py VIDEO... [--interrupt 20] [--seed 0]

Reads the first video from disk and from the server, interleaved, and counts bytes and requests.
Then `vidkd extract-flow` of all videos into a cache on the server is killed with SIGKILL at random
moments, while a proxy breaks every tenth request in one of six ways. After each kill every file in
the cache is read and compared with that of an undisturbed run on disk. Needs moto and s3fs, as the
tests do.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "storage"))
from faulty import FaultyProxy

from vidkd.cache import verify_cache
from vidkd.storage import as_path, upload
from vidkd.video import probe, read_frames

BUCKET = "vidkd-bench"
FAULTS = ("refuse", "500", "503", "cut", "half", "lost")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--interrupt", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    with tempfile.TemporaryDirectory() as folder, FaultyProxy(port) as proxy:
        os.environ |= {
            "AWS_ENDPOINT_URL": proxy.address,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "VIDKD_STORAGE": f"{folder}/copies",
        }
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}")
        client.create_bucket(Bucket=BUCKET)
        for video in options.videos:
            upload(video, f"s3://{BUCKET}/videos/{video.name}")
        compare_reading(proxy, options.videos[0])
        if options.interrupt:
            interrupt(proxy, client, options, Path(folder))
    server.stop()


def compare_reading(proxy: FaultyProxy, video: Path) -> None:
    remote = as_path(f"s3://{BUCKET}/videos/{video.name}")
    middle = (probe(video).duration or 0) / 2
    size = video.stat().st_size
    part = {"start": middle, "end": middle + 1}
    tasks: dict[str, Callable[[Path], Any]] = {
        "what the container says": probe,
        "one second in the middle": lambda path: [f.image for f in read_frames(path, **part)],
        "all frames": lambda path: sum(1 for _ in read_frames(path)),
        "all frames, again": lambda path: sum(1 for _ in read_frames(path)),
    }
    print(f"{video.name}: {size / 1e6:.2f} MB\n")
    print("| read | disk, s | S3, s | bytes from S3 | of the file | requests |")
    print("|---|---|---|---|---|---|")
    for name, task in tasks.items():
        started = time.perf_counter()
        task(video)
        local = time.perf_counter() - started
        sent, seen = proxy.sent, len(proxy.seen)
        started = time.perf_counter()
        task(remote)
        seconds = time.perf_counter() - started
        sent, seen = proxy.sent - sent, len(proxy.seen) - seen
        print(f"| {name} | {local:.3f} | {seconds:.3f} | {sent} | {sent / size:.0%} | {seen} |")


def puts(proxy: FaultyProxy, before: int) -> int:
    return sum(method == "PUT" for method, *_ in proxy.seen[before:])


def interrupt(proxy: FaultyProxy, client: Any, options: Any, folder: Path) -> None:
    chance = random.Random(options.seed)
    names = [f"s3://{BUCKET}/videos/{video.name}" for video in options.videos]
    command = [sys.executable, "-m", "vidkd", "extract-flow"]
    settings = ["--short-side", "32", "--frame-rate", "2", "--backend", "opencv"]
    reference = [*command, *map(str, options.videos), "--cache", str(folder / "cache"), *settings]
    subprocess.run(reference, check=True, capture_output=True)
    expected = {path.name: path.read_bytes() for path in (folder / "cache/flow").glob("*.h5")}

    def found() -> dict[str, bytes]:
        listed = client.list_objects_v2(Bucket=BUCKET, Prefix="cache/flow/").get("Contents", [])
        keys = [item["Key"] for item in listed if item["Key"].endswith(".h5")]
        contents = (client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys)
        return {key.rpartition("/")[2]: data for key, data in zip(keys, contents, strict=True)}

    proxy.plan = lambda number, method: chance.choice(FAULTS) if chance.random() < 0.1 else ""
    cache = f"s3://{BUCKET}/cache"
    killed = 0
    log = (folder / "log").open("wb")
    print()
    while killed < options.interrupt:
        before = len(proxy.seen)
        process = subprocess.Popen(
            [*command, *names, "--cache", cache, *settings, "--overwrite"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        # Amid the work: after some file or claim was sent, at any moment of what follows.
        amount = chance.randint(1, 2 * len(expected))
        while process.poll() is None and puts(proxy, before) < amount:
            time.sleep(0.01)
        try:
            process.wait(chance.uniform(0, 0.5))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        there = found()
        wrong = [name for name, data in there.items() if data != expected[name]]
        print(f"killed {killed} times: {len(there)} files, {len(wrong)} wrong", flush=True)
        if len(there) == len(expected) and killed < options.interrupt:
            for name in chance.sample(sorted(there), max(1, len(there) // 2)):
                client.delete_object(Bucket=BUCKET, Key=f"cache/flow/{name}")
    faults = len(proxy.seen)
    finished = subprocess.run(
        [*command, *names, "--cache", cache, *settings], stdout=log, stderr=log, check=False
    )
    proxy.plan = lambda number, method: ""
    problems = [item for item in verify_cache(as_path(cache), as_path(names[0]).parent) if item[1]]
    print(
        f"{killed} kills, {faults} requests; at the end exit code {finished.returncode},"
        f" {len(found())} of {len(expected)} files, equal: {found() == expected},"
        f" verify finds {len(problems)} wrong, leftovers here:"
        f" {len(list((folder / 'copies/writing').iterdir()))}"
    )


if __name__ == "__main__":
    main()
