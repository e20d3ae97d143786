"""Which settings differ: one wording wherever something was made with other settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], *, none_is_absent: bool = False
) -> list[str]:
    """Name the settings in which two differ, such as ``flow.bound is 10 (asked for: 20)``.

    Args:
        found: what something was made with, as JSON values.
        wanted: what it should have been made with.
        none_is_absent: take None for the same as no entry, where settings have been added since.
    """
    have, want = _flat(found), _flat(wanted)
    if none_is_absent:
        have, want = ({k: v for k, v in flat.items() if v != "null"} for flat in (have, want))
    phrases = []
    for name in sorted(have.keys() | want.keys()):
        if name not in have:
            phrases.append(f"{name} is not recorded (asked for: {_short(want[name])})")
        elif name not in want:
            phrases.append(f"{name} is {_short(have[name])} (not asked for)")
        elif have[name] != want[name]:
            phrases.append(f"{name} is {_short(have[name])} (asked for: {_short(want[name])})")
    return phrases


def listed(parts: Sequence[str], limit: int = 3) -> str:
    """Return the first few of several differences, or videos, and how many more there are."""
    more = f" and {len(parts) - limit} more" if len(parts) > limit else ""
    return ", ".join(parts[:limit]) + more


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as ``{"outer.inner": JSON text}``."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = json.dumps(value)
    return flat


def _short(text: str) -> str:
    return text if len(text) <= 48 else text[:45] + "..."
