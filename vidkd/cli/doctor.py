"""``vidkd doctor``: what works on this machine."""

from __future__ import annotations

import typer

from vidkd.cli.options import Json
from vidkd.console import emit


def doctor(
    as_json: Json = False,
) -> None:
    """Check that everything works on this machine, and say how to fix what does not.

    Exits with 1 when something that is needed is broken.
    """
    from vidkd.pipeline.doctor import examine

    checks = examine()
    emit(
        [vars(check) for check in checks],
        as_json,
        ("check", "state", "found", "what to do"),
        [
            (check.name, check.state, check.found, "" if check.state == "ok" else check.remedy)
            for check in checks
        ],
    )
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(1)
