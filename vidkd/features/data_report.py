"""What ``vidkd data check`` reports, and how it matches names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from vidkd.keys import KeyIndex

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One mismatch.

    Attributes:
        severity: ``error`` when it would stop training, else ``warning``.
        kind: a short name by which findings are grouped.
        video: the video concerned; empty when it is the whole data set.
        detail: what was found and what to do.
    """

    severity: Severity
    kind: str
    video: str
    detail: str


@dataclass
class DataReport:
    """What ``check_data`` looked at and found.

    Attributes:
        counts: videos, segments and classes of the annotations, videos per subset, video files
            and feature files per encoder.
        findings: errors first, in the order in which they were found.
    """

    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, severity: Severity, kind: str, video: str, detail: str) -> None:
        """Add one finding."""
        self.findings.append(Finding(severity, kind, video, detail))

    def of(self, severity: str) -> list[Finding]:
        """Return the findings of one severity."""
        return [item for item in self.findings if item.severity == severity]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "ok": not self.of("error"),
            "errors": len(self.of("error")),
            "warnings": len(self.of("warning")),
            "counts": self.counts,
            "findings": [vars(item) for item in self.findings],
        }


def similar(files: KeyIndex[Any], video: str) -> str:
    """Return a phrase that names a file which probably is meant by ``video``, or nothing."""
    wanted = _loose(video.rpartition("/")[2])
    for key in files.items:
        if _loose(key.rpartition("/")[2]) == wanted:
            return f"; there is {key!r}: make the two names the same"
    return ""


def _loose(name: str) -> str:
    """Return a name without what people's tools change: case, endings, ``v_`` and separators."""
    stem = name.rpartition(".")[0] if name.rpartition(".")[2].lower() in _ENDINGS else name
    return stem.casefold().removeprefix("v_").replace("-", "").replace("_", "").replace(" ", "")


_ENDINGS = frozenset({"mp4", "avi", "mkv", "webm", "mov", "mpg", "npy", "h5"})
