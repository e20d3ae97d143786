"""What commands import before they begin: all that is heavy takes longer than a short clip."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"cv2", "matplotlib", "numba", "rich", "scipy", "torch", "transformers"}


@pytest.mark.parametrize(
    ("modules", "allowed"),
    [
        ("vidkd.cli.extract", set()),
        ("vidkd.cli.extract, vidkd.features, vidkd.networks.cards, vidkd.networks.device", set()),
        ("vidkd.cli.detect, vidkd.detection.detector", {"torch"}),
    ],
)
def test_nothing_heavy_is_imported_that_is_not_needed(modules: str, allowed: set[str]) -> None:
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & HEAVY == allowed
