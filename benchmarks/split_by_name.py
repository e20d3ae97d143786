"""Divide annotated videos anew by their names: cross-view from cross-subject, say.

Example: views FCE and LFT train, RGT tests, and the people S005 and S006 of the training views
validate:

    python benchmarks/split_by_name.py annotations.json cross-view.json \
        --testing _RGT_ --validation 'S00[56]_'

A video belongs to the first of testing, validation and training whose pattern occurs in its name.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from vidkd.annotations import Annotations, load_annotations
from vidkd.annotations.activitynet import write_annotations

SUBSETS = ("testing", "validation", "training")


def divide(annotations: Annotations, patterns: dict[str, str]) -> Annotations:
    """Return the annotations with new subsets; videos that no pattern fits are left out.

    Args:
        annotations: videos of any subsets.
        patterns: regular expression of each subset; an earlier one has the first claim.
    """
    videos = {}
    for name, video in annotations.videos.items():
        subset = next((s for s, pattern in patterns.items() if re.search(pattern, name)), None)
        if subset is not None:
            videos[name] = replace(video, subset=subset)
    return replace(annotations, videos=videos)


def main() -> None:
    """Read one file and write the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("annotations", type=Path)
    parser.add_argument("output", type=Path)
    for subset in SUBSETS:
        default = {"default": ""} if subset == "training" else {"required": True}
        parser.add_argument(f"--{subset}", metavar="REGEX", **default)
    arguments = vars(parser.parse_args())
    patterns = {subset: arguments[subset] for subset in SUBSETS}
    divided = divide(load_annotations(arguments["annotations"], "auto"), patterns)
    write_annotations(arguments["output"], divided)
    counts = Counter(video.subset for video in divided.videos.values())
    print(", ".join(f"{counts[subset]} {subset}" for subset in reversed(SUBSETS)))


if __name__ == "__main__":
    main()
