"""The process that works on videos: it loads the model once and does one job after another.

It talks in lines of JSON over a pipe. A video can crash it (a defect of a decoder, too little
memory), and then it alone ends.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidkd.console import log
from vidkd.errors import VidkdError
from vidkd.files import write_json
from vidkd.recipe import Precision
from vidkd.workers import Cancelled, limit_threads

if TYPE_CHECKING:
    from vidkd.detection.detector import DetectionResult, Detector

_REPORT_SECONDS = 0.25
_LARGEST_PICTURE = 40_000_000
"""Pixels; an 8K picture has 33 million. A small file can claim any number."""


@dataclass(frozen=True)
class WorkerSpec:
    """What every worker is started with.

    Attributes:
        models: as ``vidkd detect --model``.
        precision: of the encoder.
        batch_size: snippets at a time; None for what suits the device.
        threads: of each worker.
        pages: make the page of each video.
        longest: seconds of the longest video.
    """

    models: tuple[str, ...]
    precision: Precision
    batch_size: int | None
    threads: int
    pages: bool
    longest: float


def work(connection: Connection, spec: WorkerSpec, device: str) -> None:
    """Load the model, say so, and do jobs until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, which the server heeds
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        limit_threads(spec.threads)
        import torch

        from vidkd.detection.detector import Detector

        torch.set_num_threads(spec.threads)
        detector = Detector(spec.models, device, precision=spec.precision)
    except VidkdError as error:
        _send(connection, event="broken", problem=str(error))
        return
    classes = list(detector.scorer.classes)
    _send(connection, event="ready", classes=classes, name=_model_name(detector))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            message = json.loads(connection.recv_bytes())
            if "job" in message:
                _do(connection, detector, spec, **message)


def _end_with_parent() -> None:
    """A server that was killed cannot stop its workers, and its successor starts others."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _model_name(detector: Detector) -> str:
    """Return the name of the model without the folders that it lies in."""
    parts = detector.scorer.name.partition("#")[0].split(" + ")
    return " + ".join(part.rstrip("/").rpartition("/")[2] for part in parts)


def _do(
    connection: Connection,
    detector: Detector,
    spec: WorkerSpec,
    *,
    job: str,
    name: str,
    video: str,
    threshold: float | None,
) -> None:
    path, folder = Path(video), Path(video).parent
    try:
        result = _detect(connection, detector, spec, path, threshold)
        found = sorted(result.segments, key=lambda item: (item.start, item.end))
        content = {"results": {name: [item.to_json() for item in found]}}
        write_json(folder / "result.json", content)
        _send(connection, event="found", duration=result.duration)
        if spec.pages:
            _page(folder / "page.html", replace(result, video_id=name, model=_model_name(detector)))
        _send(connection, event="done", page=spec.pages)
    except Cancelled:
        _send(connection, event="cancelled")
    except VidkdError as error:
        # Without the path, which is of this machine.
        remedy = f"; {error.remedy}" if error.remedy else ""
        _send(connection, event="failed", problem=f"the video {error.problem}{remedy}")
    except Exception as error:  # one video must not end the work on others
        log(f"job {job}: {traceback.format_exc()}")
        name = type(error).__name__
        _send(connection, event="failed", problem=f"an error of the server ({name})")


def _page(path: Path, result: DetectionResult) -> None:
    from vidkd.view.offline import write_page

    write_page(path, result)


def _detect(
    connection: Connection,
    detector: Detector,
    spec: WorkerSpec,
    path: Path,
    threshold: float | None,
) -> DetectionResult:
    from vidkd.video import open_video

    with open_video(path) as opened:
        info, total = opened.info, detector.frame_total(opened)
        if info.width * info.height > _LARGEST_PICTURE:
            raise VidkdError("has larger pictures than this server takes")
        longest = f"is longer than {spec.longest / 60:g} minutes"
        if (info.duration or 0) > spec.longest:
            raise VidkdError(longest)
        # What the container says may be wrong.
        most = 1.02 * spec.longest / (info.duration or 1) * (total or 0)
        most = most if info.duration else 1.02 * spec.longest * float(info.frame_rate)
        state = {"done": 0.0, "told": time.monotonic()}

        def report(frames: float) -> None:
            state["done"] += frames
            if state["done"] > most:
                raise VidkdError(longest)
            if time.monotonic() - state["told"] < _REPORT_SECONDS:
                return
            state["told"] = time.monotonic()
            if connection.poll() and "cancel" in json.loads(connection.recv_bytes()):
                raise Cancelled
            share = min(1.0, state["done"] / total) if total else 0.0
            _send(connection, event="progress", progress=share)

        return detector(opened, threshold=threshold, batch_size=spec.batch_size, report=report)


def _send(connection: Connection, **message: Any) -> None:
    connection.send_bytes(json.dumps(message).encode())


def devices(device: str, workers: int | None) -> Sequence[str]:
    """Return the device of each worker: every GPU in turn, or the CPU.

    Raises:
        UsageError: there is no such device.
    """
    from vidkd.networks import select_device

    chosen = str(select_device(device))
    if chosen.startswith("cuda") and device in {"auto", "cuda"}:
        import torch

        found = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    else:
        found = [chosen]
    return [found[number % len(found)] for number in range(workers or len(found))]
