"""``vidkd doctor``: what works on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from vidkd.console import emit_json, emit_table


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Try everything vidkd needs once, and say how to fix what does not work.

    Exits with 1 when something that is needed is broken.
    """
    from vidkd.pipeline.doctor import examine

    checks = examine()
    if as_json:
        emit_json([check.to_json() for check in checks])
    else:
        emit_table(
            "",
            ("check", "state", "found", "what to do"),
            [
                (check.name, check.state, check.found, "" if check.state == "ok" else check.remedy)
                for check in checks
            ],
        )
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(1)
