"""Jobs as folders on disk, so that a server that was killed goes on with them.

``DATA/jobs/ID`` holds ``job.json``, the video, and once it is done ``result.json`` and the page. A
folder without ``job.json`` is an upload that broke off.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from vidkd.console import log
from vidkd.errors import VidkdError
from vidkd.files import write_json

FETCHING, QUEUED, RUNNING, DONE, FAILED = "fetching", "queued", "running", "done", "failed"
_ID = re.compile(r"[0-9a-f]{32}")
RESULT, PAGE = "result.json", "page.html"
ATTEMPTS = 2


@dataclass
class Job:
    """One video and what becomes of it.

    Attributes:
        id: 128 random bits, which nobody guesses.
        name: of the video, without its ending, as the sender called it.
        file: name of the video in the folder.
        state: see the names above.
        created, started, ended: seconds since 1970.
        bytes: of the video.
        attempts: how often work on it began.
        threshold: lowest score; None for the model's.
        url: where the video is fetched from; None for uploads.
        problem: why it failed.
        duration: of the video in seconds, once it is known.
        page: whether its page is there.
        progress: share of the work that is done.
    """

    id: str
    name: str
    file: str
    state: str
    created: float
    bytes: int = 0
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    threshold: float | None = None
    url: str | None = None
    problem: str | None = None
    duration: float | None = None
    page: bool = False
    progress: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in {DONE, FAILED}


def new_job(name: str, state: str, threshold: float | None, url: str | None = None) -> Job:
    """Return a job for a video that its sender calls ``name``, which may be anything."""
    # Whatever separates folders anywhere, and what cannot be shown.
    last = PurePosixPath(name.replace("\\", "/")).name
    last = "".join(c for c in last if c.isprintable()).strip()[:120]
    stem, dot, ending = last.rpartition(".")
    ending = ending.lower() if dot and re.fullmatch(r"[A-Za-z0-9]{1,5}", ending) else ""
    stem = (stem if ending else last) or "video"
    file = f"video.{ending or 'bin'}"
    return Job(secrets.token_hex(16), stem, file, state, time.time(), threshold=threshold, url=url)


class Store:
    """The folder of all jobs, held by one server at a time.

    Args:
        folder: ``DATA``.
        limit: bytes of all jobs together.
        keep: seconds that finished jobs stay.

    Attributes:
        jobs: by id, those of before included.

    Raises:
        VidkdError: the folder cannot be written, or another server has it.
    """

    def __init__(self, folder: Path, limit: float, keep: float) -> None:
        self._folder, self._limit, self._keep = folder / "jobs", limit, keep
        self._reserved = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (folder / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise VidkdError(
                "another server works in this folder", path=folder, remedy="choose another --data"
            ) from error
        except OSError as error:
            raise VidkdError(
                f"cannot be written ({error.strerror})", path=folder, remedy="choose another --data"
            ) from error
        self.jobs = {job.id: job for job in self._read()}
        self._sizes = {name: _bytes(self._folder / name) for name in self.jobs}

    def _read(self) -> Iterator[Job]:
        for folder in sorted(self._folder.iterdir()):
            try:
                job = Job(**json.loads((folder / "job.json").read_text(encoding="utf-8")))
                if not _ID.fullmatch(folder.name) or job.id != folder.name:
                    raise ValueError(folder.name)
            except (OSError, ValueError, TypeError):
                log(f"note: {folder.name} is no whole job, and is removed")
                shutil.rmtree(folder, ignore_errors=True)
                continue
            if job.state == RUNNING:
                job.state = QUEUED
            if job.state == QUEUED and job.attempts >= ATTEMPTS:
                end(job, "the server ended twice while this video was worked on")
            yield job

    def folder(self, job: Job) -> Path:
        """Return the folder of a job."""
        return self._folder / job.id

    def video(self, job: Job) -> Path:
        """Return its video."""
        return self.folder(job) / job.file

    def save(self, job: Job) -> None:
        """Write the state of a job.

        Raises:
            VidkdError: it cannot be written.
        """
        fields: dict[str, Any] = asdict(job)
        del fields["progress"]
        write_json(self.folder(job) / "job.json", fields)
        self.jobs[job.id] = job
        self._sizes[job.id] = _bytes(self.folder(job))

    def remove(self, job: Job) -> None:
        """Remove a job and all its files."""
        self.jobs.pop(job.id, None)
        self._sizes.pop(job.id, None)
        shutil.rmtree(self.folder(job), ignore_errors=True)

    @property
    def used(self) -> int:
        """Bytes of all jobs, with those that are on their way."""
        return sum(self._sizes.values()) + self._reserved

    def expire(self, now: float) -> None:
        """Remove finished jobs that were kept long enough."""
        for job in list(self.jobs.values()):
            if job.finished and now - (job.ended or 0) > self._keep:
                self.remove(job)

    @contextlib.contextmanager
    def incoming(self, job: Job, size: int) -> Iterator[IO[bytes]]:
        """Give a file for the video of a job; when the block raises, all of the job is removed.

        Args:
            job: not saved yet.
            size: the most bytes that it will have.

        Raises:
            FullError: there is no room for so many.
        """
        free = self._limit - self.used + sum(self._sizes.get(own.id, 0) for own in self._old())
        if size > free:
            raise FullError("the disk that this server may use is full")
        self._reserved += size
        try:
            self.folder(job).mkdir(mode=0o700)
            with self.video(job).open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                came = stream.tell()
        except BaseException as error:
            self.remove(job)
            if isinstance(error, OSError):
                raise FullError(f"the disk does not take it ({error.strerror})") from error
            raise
        finally:
            self._reserved -= size
        # Only now, since who promises much and sends nothing must not cost others their results.
        for old in self._old():
            if self.used + came <= self._limit:
                break
            self.remove(old)

    def _old(self) -> list[Job]:
        """Return the finished jobs, the oldest first."""
        finished = (job for job in self.jobs.values() if job.finished)
        return sorted(finished, key=lambda job: job.ended or 0)

    def close(self) -> None:
        """Let another server have the folder."""
        self._lock.close()


class FullError(Exception):
    """The disk is full, or as full as it may be."""


def end(job: Job, problem: str | None = None) -> None:
    """Mark a job as done, or as failed."""
    job.state, job.problem, job.ended = (FAILED if problem else DONE), problem, time.time()


def _bytes(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(item.stat().st_size for item in folder.iterdir())
    return 0
