"""Which settings differ: one wording wherever something was made with other settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Name the keys in which two settings differ: ``flow.bound: 10 instead of 20``.

    Args:
        found: what something was made with, as JSON values.
        wanted: what it should have been made with.
    """
    parts: list[str] = []
    for key in dict.fromkeys([*found, *wanted]):
        one, other = found.get(key), wanted.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            parts += [f"{key}.{part}" for part in differences(one, other)]
        elif one != other:
            parts.append(f"{key}: {_short(one)} instead of {_short(other)}")
    return parts


def listed(parts: list[str], limit: int = 3) -> str:
    """Return the first few of several differences, or videos, and how many more there are."""
    more = f" and {len(parts) - limit} more" if len(parts) > limit else ""
    return ", ".join(parts[:limit]) + more


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 48 else text[:45] + "..."
