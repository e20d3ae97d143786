"""Commands called in this process: starting Python and its libraries anew takes a second each.

Every command is also tested as a process of its own somewhere.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from unittest import mock

from vidkd.cli import main


def vidkd(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``vidkd ARGUMENTS``; an exception that is no exit is raised here, and fails the test."""
    command = ["vidkd", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        mock.patch.object(sys, "argv", command),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    number = code if isinstance(code, int) else int(code is not None)
    return subprocess.CompletedProcess(command, number, out.getvalue(), err.getvalue())
