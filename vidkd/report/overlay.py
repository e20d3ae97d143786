"""Annotated video: what is happening now over the picture, and the timeline below it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidkd.annotations import Segment
from vidkd.evaluation import Detection
from vidkd.report.segments import choose_labels, clock, colour_of, rgb
from vidkd.video.redraw import Draw, redraw

BACKGROUND = (17, 24, 39)
TRACK = (36, 45, 62)
TEXT = (229, 231, 235)
MUTED = (156, 163, 175)
TRUTH = (140, 147, 160)
PLAYHEAD = (255, 255, 255)


class Overlay:
    """Draws frames of one video with its detections.

    The panel below the picture never changes but for the playhead, so it is drawn once.

    Args:
        width: of the picture, in pixels.
        height: of the picture.
        duration: of the video, in seconds.
        classes: K names.
        segments: what was detected.
        truth: what is annotated, drawn as a thin grey line under each row; None for no such line.
    """

    def __init__(
        self,
        width: int,
        height: int,
        duration: float,
        classes: Sequence[str],
        segments: Sequence[Detection],
        truth: Sequence[Segment] | None = None,
    ) -> None:
        self._size = width, height
        self._duration = max(duration, 1e-6)
        self._segments = segments
        labels = choose_labels(classes, None, segments, truth or (), limit=6)
        self._colours = colour_of(labels)
        self._unit = max(10, round(min(height, 0.75 * width) / 22))
        self._left, self._track = self._columns(labels)
        self._panel = self._draw_panel(labels, truth)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what `draw` returns."""
        return self._size[0], self._size[1] + self._panel.height

    def draw(self, image: np.ndarray, time: float) -> np.ndarray:
        """Return a picture, (H, W, 3) uint8 of the size given, with everything drawn."""
        width, height = self._size
        canvas = Image.new("RGB", self.size, BACKGROUND)
        canvas.paste(Image.fromarray(image), (0, 0))
        canvas.paste(self._panel, (0, height))
        top = self._unit // 2
        for item in self._current(time):
            chip = _chip(item.label, f"{item.score:.2f}", self._colour(item.label), self._unit)
            chip = chip.crop((0, 0, min(chip.width, width - self._unit), chip.height))
            canvas.paste(chip, (self._unit // 2, top), chip)
            top += chip.height + self._unit // 4
        pen = ImageDraw.Draw(canvas)
        x = self._x(time)
        bottom = height + self._panel.height - round(1.5 * self._unit)
        thickness = max(1, self._unit // 8)
        pen.rectangle((x - thickness // 2, height, x + (thickness - 1) // 2, bottom), PLAYHEAD)
        text = f"{clock(time)} / {clock(self._duration)}"
        pen.text(
            (width - self._unit // 2, self.size[1] - round(0.75 * self._unit)), text,
            fill=TEXT, font=_font(round(0.72 * self._unit)), anchor="rm",
        )  # fmt: skip
        return np.asarray(canvas)

    def _current(self, time: float) -> list[Detection]:
        now = [item for item in self._segments if item.start <= time < item.end]
        return sorted(now, key=lambda item: -item.score)[:5]

    def _colour(self, label: str) -> tuple[int, int, int]:
        return rgb(self._colours[label]) if label in self._colours else (107, 114, 128)

    def _columns(self, labels: Sequence[str]) -> tuple[int, int]:
        """Return where the tracks begin and how wide they are; names take a third at most."""
        font = _font(round(0.72 * self._unit))
        longest = max((font.getlength(label) for label in labels), default=0.0)
        left = math.ceil(min(longest, 0.33 * self._size[0])) + 2 * (self._unit // 2)
        return left, self._size[0] - left - self._unit // 2

    def _x(self, time: float) -> int:
        share = min(max(time / self._duration, 0.0), 1.0)
        return self._left + round(share * (self._track - 1))

    def _draw_panel(self, labels: Sequence[str], truth: Sequence[Segment] | None) -> Image.Image:
        unit = self._unit
        row, font = round(1.25 * unit), _font(round(0.72 * unit))
        rows = max(len(labels), 1)
        height = unit // 2 + rows * row + round(1.5 * unit)
        # H.264 wants even sizes.
        height += (self._size[1] + height) % 2
        panel = Image.new("RGB", (self._size[0], height), BACKGROUND)
        pen = ImageDraw.Draw(panel)
        if not labels:
            pen.text((unit // 2, unit), "no action found", fill=MUTED, font=font, anchor="lm")
        for number, label in enumerate(labels):
            top = unit // 2 + number * row
            middle = top + row / 2
            name = _shortened(label, font, self._left - 2 * (unit // 2))
            pen.text((self._left - unit // 2, middle), name, fill=TEXT, font=font, anchor="rm")
            inner = top + unit // 5, top + row - unit // 5
            pen.rectangle((self._left, inner[0], self._left + self._track - 1, inner[1]), TRACK)
            cut = inner[1] if truth is None else inner[1] - max(2, unit // 4) - 1
            for item in self._segments:
                if item.label == label:
                    ends = self._x(item.start), max(self._x(item.end) - 1, self._x(item.start))
                    pen.rectangle((ends[0], inner[0], ends[1], cut), self._colour(label))
            for known in truth or ():
                if known.label == label:
                    ends = self._x(known.start), max(self._x(known.end) - 1, self._x(known.start))
                    pen.rectangle((ends[0], cut + 2, ends[1], inner[1]), TRUTH)
        if truth is not None:
            pen.text(
                (unit // 2, height - round(0.75 * unit)), "colour: detected   grey: annotated",
                fill=MUTED, font=_font(round(0.62 * unit)), anchor="lm",
            )  # fmt: skip
        return panel


class LiveOverlay:
    """Draws pictures of a source that never ends: what is open, and below it the scores of now.

    The rows of the panel are the classes that scored highest of late, in the order of all classes.

    Args:
        name: of the source.
        limit: the largest number of rows; 0 draws no panel.
    """

    _FADE_SECONDS = 20.0

    def __init__(self, name: str, limit: int = 5) -> None:
        self._name = name
        self._limit = limit
        self._colours: dict[str, str] = {}
        self._recent: dict[str, float] = {}
        self._time = 0.0

    def draw(
        self,
        image: np.ndarray,
        time: float,
        scores: Mapping[str, float],
        current: Sequence[tuple[str, float, float, bool]],
    ) -> np.ndarray:
        """Return a picture with everything drawn.

        Args:
            image: (H, W, 3) uint8.
            time: its second.
            scores: of the last snippet, by class.
            current: label, score and begin in seconds of what is open, and whether it is certain;
                what is not has a grey bar.
        """
        height, width = image.shape[:2]
        unit = max(10, round(min(height, 0.75 * width) / 22))
        if scores.keys() != self._colours.keys():
            self._colours, self._recent = colour_of(list(scores)), {}
        rows = self._rows(time, scores)
        row = round(1.25 * unit)
        below = len(rows) * row + unit if rows else 0
        canvas = Image.new("RGB", (width, height + below), BACKGROUND)
        canvas.paste(Image.fromarray(image), (0, 0))
        top = unit // 2
        for label, score, begin, certain in current[:5]:
            colour = rgb(self._colours[label]) if certain and label in self._colours else TRUTH
            text = f"{score:.2f}   {max(0.0, time - begin):.0f} s"
            chip = _chip(label, text, colour, unit)
            chip = chip.crop((0, 0, min(chip.width, width - unit), chip.height))
            canvas.paste(chip, (unit // 2, top), chip)
            top += chip.height + unit // 4
        pen, font = ImageDraw.Draw(canvas), _font(round(0.72 * unit))
        title = _shortened(f"{self._name}   {clock(time)}", font, width - unit)
        pen.text(
            (unit // 2, height - unit // 2), title,
            fill=TEXT, font=font, anchor="ls",
            stroke_width=max(1, unit // 8), stroke_fill=BACKGROUND,
        )  # fmt: skip
        left, right = round(0.33 * width), width - round(2.2 * unit)
        for number, label in enumerate(rows):
            middle = height + unit // 2 + number * row + row / 2
            pen.text(
                (left - unit // 2, middle), _shortened(label, font, left - unit),
                fill=TEXT, font=font, anchor="rm",
            )  # fmt: skip
            ends = middle - 0.3 * row, middle + 0.3 * row
            pen.rectangle((left, ends[0], right, ends[1]), TRACK)
            if (length := round(min(max(scores[label], 0.0), 1.0) * (right - left))) > 0:
                pen.rectangle((left, ends[0], left + length, ends[1]), rgb(self._colours[label]))
            pen.text(
                (width - unit // 2, middle), f"{scores[label]:.2f}",
                fill=MUTED, font=font, anchor="rm",
            )  # fmt: skip
        return np.asarray(canvas)

    def _rows(self, time: float, scores: Mapping[str, float]) -> list[str]:
        keep = math.exp(min(0.0, self._time - time) / self._FADE_SECONDS)
        self._time = time
        for label, score in scores.items():
            self._recent[label] = max(score, keep * self._recent.get(label, 0.0))
        best = set(sorted(self._recent, key=lambda label: -self._recent[label])[: self._limit])
        return [label for label in scores if label in best]


def notice(image: Image.Image, text: str) -> Image.Image:
    """Return a picture, darkened, with a line of text in its middle."""
    image = Image.blend(image, Image.new("RGB", image.size, BACKGROUND), 0.6)
    font = _font(max(11, image.height // 24))
    middle = image.width / 2, image.height / 2
    text = _shortened(text, font, 0.95 * image.width)
    ImageDraw.Draw(image).text(middle, text, fill=TEXT, font=font, anchor="mm")
    return image


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


@functools.lru_cache(maxsize=8)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # The font that travels with matplotlib: the same on every machine.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


@functools.lru_cache(maxsize=256)
def _chip(label: str, score: str, colour: tuple[int, int, int], unit: int) -> Image.Image:
    """Return a rounded, half-transparent plate with a colour bar, a name and a score."""
    bold, plain = _font(unit, bold=True), _font(round(0.85 * unit))
    pad = unit // 2
    name_width, score_width = round(bold.getlength(label)), round(plain.getlength(score))
    height = round(1.7 * unit)
    width = pad + unit // 3 + pad + name_width + pad + score_width + pad
    chip = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    pen = ImageDraw.Draw(chip)
    pen.rounded_rectangle((0, 0, width - 1, height - 1), radius=unit // 2, fill=(*BACKGROUND, 205))
    bar = (pad, round(0.4 * unit), pad + unit // 3, height - round(0.4 * unit))
    pen.rounded_rectangle(bar, radius=unit // 6, fill=(*colour, 255))
    x = pad + unit // 3 + pad
    pen.text((x, height / 2), label, fill=(255, 255, 255, 255), font=bold, anchor="lm")
    x += name_width + pad
    pen.text((x, height / 2), score, fill=(209, 213, 219, 255), font=plain, anchor="lm")
    return chip


def render_overlay(
    video: str | Path,
    path: str | Path,
    duration: float,
    classes: Sequence[str],
    segments: Iterable[Detection],
    *,
    truth: Sequence[Segment] | None = None,
    report: Callable[[float], None] | None = None,
) -> None:
    """Write an annotated copy of a video as H.264 in MP4, with its sound, atomically.

    Args:
        video: the original.
        path: the file to write.
        duration: of the video, in seconds.
        classes: K names.
        segments: what was detected.
        truth: what is annotated, if that is to be shown.
        report: called with the number of frames done since the last call.

    Raises:
        VideoError: the video cannot be decoded.
        VidkdError: the file cannot be written.
    """

    def begin(width: int, height: int) -> tuple[tuple[int, int], Draw]:
        overlay = Overlay(width, height, duration, classes, list(segments), truth)
        return overlay.size, overlay.draw

    redraw(video, path, begin, report)
