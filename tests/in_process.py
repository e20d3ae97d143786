"""Commands called in this process, and their jobs done in it.

Starting Python and its libraries anew takes seconds each time. Every command is also tested as a
process of its own somewhere, and so is the pool of processes.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from vidkd.cli import main
from vidkd.errors import VidkdError
from vidkd.workers import Ended, Report, Work


class InThisProcess:
    """An executor that does one job after the other."""

    def run(
        self,
        jobs: Sequence[Any],
        work: Work,
        *,
        advance: Report,
        silence: Callable[[Any], float] | None = None,
    ) -> Iterator[Ended[Any]]:
        """Yield each job when it has ended."""
        import torch

        threads = torch.get_num_threads()
        for job in jobs:
            try:
                ended = Ended(job, work(job, advance, 1), None, 0.0)
            except VidkdError as error:
                ended = Ended(job, None, error, 0.0)
            finally:
                torch.set_num_threads(threads)
            yield ended


def vidkd(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``vidkd ARGUMENTS``; an exception that is no exit is raised here, and fails the test."""
    command = ["vidkd", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch("vidkd.cluster.executors.LocalPool.run", InThisProcess.run),
        mock.patch("vidkd.cluster.executors.begun", return_value=contextlib.nullcontext()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    number = code if isinstance(code, int) else int(code is not None)
    return subprocess.CompletedProcess(command, number, out.getvalue(), err.getvalue())
