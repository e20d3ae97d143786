"""RGB frames."""

from __future__ import annotations

from vidkd.recipe.choices import STUDENT_STREAM
from vidkd.streams.base import Stream


class Rgb(Stream):
    """The frames of the video as they are: what students see."""

    name = STUDENT_STREAM
    label = "RGB"
    from_rgb = True
