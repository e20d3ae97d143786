"""Where an experiment keeps what it makes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vidkd.files import refuse_address


@dataclass(frozen=True)
class Layout:
    """Where an experiment keeps what it makes.

    Attributes:
        root: the folder of everything.
        shared: the folder of flow and features, if it is not in there.
    """

    root: Path
    shared: Path | None = None

    def __post_init__(self) -> None:
        """Refuse an address at once, not when the first model is to be written."""
        refuse_address(
            self.root,
            "give a folder of this machine as --output; videos, annotations and --cache may be"
            " addresses",
        )

    @property
    def data(self) -> Path:
        """Rendered videos, annotations and poses."""
        return self.root / "data"

    @property
    def cache(self) -> Path:
        """Flow and features."""
        return self.shared or self.root / "cache"

    @property
    def encoders(self) -> Path:
        """Quantised encoders; detection looks for them here."""
        return self.root / "encoders"

    @property
    def pictures(self) -> Path:
        """The timeline of a detection, the annotated video, and the training curves."""
        return self.root / "pictures"

    def run(self, name: str, seed: int) -> Path:
        """Run folder of one model and seed."""
        return self.root / "models" / f"{name}-seed{seed}"

    def evaluation(self, name: str, seed: int) -> Path:
        """Scores, segments and metrics of one row of the table and seed."""
        return self.root / "evaluation" / f"{name}-seed{seed}"


def file_name(text: str) -> str:
    """Return a name that a recipe gives as a part of file names."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-") or "row"
