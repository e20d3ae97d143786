"""One video: who, where and how it is seen; its frames and its poses."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from vidkd.recipe import SynthSettings
from vidkd.synth.body import Looks, add_body, dress
from vidkd.synth.camera import Camera
from vidkd.synth.curves import sway
from vidkd.synth.materials import Palette
from vidkd.synth.part import CLASSES, Item, Part, before_chair
from vidkd.synth.performance import Performance, perform
from vidkd.synth.places import Setting, draw_setting
from vidkd.synth.raster import cast, expose, paint, shadow
from vidkd.synth.scene import Background, draw_background
from vidkd.synth.script import Author
from vidkd.synth.shapes import Builder, Visible, prepare
from vidkd.synth.skeleton import Build
from vidkd.synth.stage import Place, Stage

Array = np.ndarray

_SAMPLES = 2
"""Samples per pixel along each axis, against jagged outlines."""


@dataclass
class Shot:
    """Everything about a video that precedes its frames."""

    times: Array
    camera: Camera
    setting: Setting
    parts: list[Part]
    shift: Array
    """(n, 2) shake of the image in pixels."""
    margin: int
    seeds: np.random.SeedSequence

    def segments(self) -> list[tuple[float, float, str]]:
        """Return (start, end, label) of all people's actions, in order of time."""
        return sorted(segment for part in self.parts for segment in part.segments())


def frame_times(settings: SynthSettings) -> Array:
    """Return the instants of the frames in seconds; the first is 0."""
    count = max(1, round(settings.seconds * settings.frame_rate))
    return np.arange(count) / settings.frame_rate


def plan(settings: SynthSettings, number: int) -> Shot:
    """Decide on everything in video ``number``; cheap, and the same for a seed everywhere."""
    seeds = np.random.SeedSequence([settings.seed, number])
    rng = np.random.default_rng(seeds.spawn(1)[0])
    times = frame_times(settings)
    duration = len(times) / settings.frame_rate
    while True:
        camera = _camera(rng, settings)
        setting = draw_setting(rng, camera)
        people = 2 if rng.random() < settings.pairs else 1
        parts = _cast(rng, camera, setting, people, duration, settings.actions or CLASSES)
        # A draw whose place is too narrow for anybody to do anything is drawn again.
        if parts is not None and all(len(part.segments()) >= duration / 12 for part in parts):
            break
    margin = max(4, round(0.05 * settings.width))
    shake = 0.0 if rng.random() < 0.35 else float(rng.uniform(0.2, 1.0)) * 0.4 * margin
    drift = np.stack([sway(times, rng, 6.0, 0.5), sway(times, rng, 6.0, 0.5)], axis=-1)
    shift = np.clip(shake * drift, 1.0 - margin, margin - 1.0)
    return Shot(times, camera, setting, parts, shift, margin, seeds)


def _camera(rng: np.random.Generator, settings: SynthSettings) -> Camera:
    distance = float(rng.uniform(4.2, 6.5))
    share = settings.closeness * float(rng.uniform(0.52, 0.72))
    focal = share * settings.height / 1.72 * distance
    azimuth = float(rng.uniform(-0.55, 0.55))
    height = float(rng.choice([rng.uniform(0.9, 1.6), rng.uniform(1.6, 2.4)]))
    position = np.array([np.sin(azimuth) * distance, -np.cos(azimuth) * distance, height])
    target = np.array([0.0, 0.0, float(rng.uniform(0.85, 0.98))])
    roll = float(rng.normal(0.0, 0.012))
    return Camera.looking(settings.width, settings.height, focal, position, target, roll)


def _cast(
    rng: np.random.Generator,
    camera: Camera,
    setting: Setting,
    people: int,
    duration: float,
    actions: Collection[str],
) -> list[Part] | None:
    side = float(rng.uniform(-0.5, 0.5)) if rng.random() < 0.6 else float(rng.uniform(1.2, 1.9))
    parts: list[Part] = []
    for number in range(people):
        half = np.array([0.0, 0.0, -9.0])
        if people == 2:
            sign = 1.0 if number == 0 else -1.0
            half = np.array([sign * np.cos(side), sign * np.sin(side), 0.36])
        stage = Stage(camera, half, setting.floor)
        part = _part(rng, stage, number)
        if part is None:
            return None
        calm = 1.0 if people == 1 else 1.6
        parts.append(Author(rng, stage, part, duration, calm, actions).write())
    return parts


def _part(rng: np.random.Generator, stage: Stage, number: int) -> Part | None:
    build = Build(
        height=float(np.clip(rng.normal(1.71, 0.09), 1.50, 1.93)),
        girth=float(rng.uniform(0.88, 1.28)),
        shoulders=float(rng.uniform(0.9, 1.1)),
    )
    chair = _chair(rng, stage) if rng.random() < 0.85 else None
    home = np.array([np.inf, np.inf, 0.0])
    if chair is not None:
        home = before_chair(chair)
        stage.obstacles["chair"] = (chair[0], chair[1], 0.28)
    spot = stage.spot(rng)
    if spot is None:
        return None
    seated = chair is not None and bool(rng.random() < 0.35)
    start = (*spot, stage.towards_camera((*spot, 0.0)) + float(rng.uniform(-1.2, 1.2)))
    if seated:
        start = (float(home[0]), float(home[1]), float(home[2]))
    item, places = None, []
    if rng.random() < 0.85:
        there = stage.spot(rng, 0.28)
        if there is not None and np.hypot(*(home[:2] - there)) < 0.75:
            there = None
        if there is not None and np.hypot(start[0] - there[0], start[1] - there[1]) > 0.6:
            if rng.random() < 0.6:
                size = rng.uniform([0.26, 0.22, 0.18], [0.42, 0.34, 0.34])
                item = Item("box", (float(size[0]), float(size[1]), float(size[2])))
            else:
                size = rng.uniform([0.12, 0.3, 0.2], [0.18, 0.44, 0.3])
                item = Item("bag", (float(size[0]), float(size[1]), float(size[2])))
            places = [(*there, float(rng.uniform(-3, 3)))]
            stage.obstacles["item"] = (there[0], there[1], 0.0)
    side = int(rng.random() < 0.25)
    plays = bool(rng.random() < 0.5)
    return Part(
        build=build,
        start=start,
        seated=seated,
        chair=chair,
        item=item,
        item_places=places,
        bottle=1 - side if rng.random() < 0.5 else None,
        ball=plays and item is None and bool(rng.random() < 0.5),
        plays=plays,
        side=side,
    )


def _chair(rng: np.random.Generator, stage: Stage) -> Place | None:
    """Return where a chair stands: seen from before, and behind most of what happens."""
    for _ in range(8):
        spot = stage.spot(rng, 0.26)
        if spot is None or spot[1] < -0.2:
            continue
        chair = (*spot, stage.towards_camera((*spot, 0.0)) + float(rng.uniform(-1.5, 1.5)))
        if stage.inside(before_chair(chair)[None, :2], 0.3)[0]:
            return chair
    return None


class Film:
    """Renders the frames of a shot, one after the other."""

    def __init__(self, shot: Shot) -> None:
        motion, decor, grain = (np.random.default_rng(seed) for seed in shot.seeds.spawn(3))
        self.shot, self._grain = shot, grain
        self.performances: list[Performance] = [
            perform(part, shot.times, motion) for part in shot.parts
        ]
        palette = Palette()
        builder = Builder(len(shot.times))
        for performance in self.performances:
            looks: Looks = dress(decor, palette, performance.part.build)
            add_body(builder, performance, looks)
        self._table = palette.table()
        self._seen: Visible = prepare(builder.solids(), shot.camera, shot.shift, _SAMPLES)
        self._background: Background = draw_background(
            decor, shot.setting, shot.camera, shot.parts, shot.margin
        )
        self._light = shot.setting.light.table(shot.camera)
        height, width = shot.camera.height, shot.camera.width
        self._noise: Array = grain.standard_normal((height + 64, width + 64, 3), dtype=np.float32)
        blurred: Array = cv2.GaussianBlur(self._noise, (3, 3), 0.6)
        self._noise = blurred / blurred.std()
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        self._vignette = (1 - float(grain.uniform(0.0, 0.16)) * (x**2 + y**2)).astype(np.float32)
        self._sensor = float(grain.uniform(1.0, 5.0))
        # The camera exposes for the whole picture, though never perfectly.
        mean = float(self._background.image.mean())
        target = float(grain.uniform(0.34, 0.46))
        bright = float(shot.setting.light.colours.sum(axis=0).mean())
        exposure = float(np.clip(target / mean, 0.75, 1.5 / bright))
        self._gain = grain.uniform(0.94, 1.06, 3) * exposure
        flicker = 0.025 * sway(shot.times, grain, 9.0, 1.0)
        self._exposure = 1 + flicker * float(grain.uniform(0.0, 1.0))
        self._blur = float(grain.uniform(0.0, 0.75))

    def frames(self) -> Iterator[tuple[Array, Array]]:
        """Yield every frame (h, w, 3) uint8 RGB with its depth (h, w) float32 in metres."""
        shot, seen, back = self.shot, self._seen, self._background
        camera, margin = shot.camera, shot.margin
        size = (camera.width, camera.height)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        for row in range(len(shot.times)):
            dx, dy = margin - shot.shift[row]
            move = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])
            image = cv2.warpAffine(back.image, move, size, flags=flags)
            depth = cv2.warpAffine(back.depth, move, size, flags=nearest)
            shadow(image, back.ground, dx, dy, self._shadows(row), 0.75)
            fine = cv2.resize(
                depth, None, fx=_SAMPLES, fy=_SAMPLES, interpolation=cv2.INTER_NEAREST
            )
            number = np.full(fine.shape, -1, dtype=np.int32)
            cx, cy = camera.centre + shot.shift[row]
            solids = (seen.kind, seen.turn[row], seen.eye[row], seen.size[row])
            cast(*solids, seen.bounds[row], camera.focal, cx, cy, _SAMPLES, fine, number, 0)
            paint(
                *solids,
                seen.material,
                self._table,
                self._light,
                camera.focal,
                cx,
                cy,
                _SAMPLES,
                fine,
                number,
                image,
            )
            if self._blur > 0.3:
                image = cv2.GaussianBlur(image, (3, 3), self._blur)
            top, left = self._grain.integers(0, 64, 2)
            gain = self._gain * self._exposure[row]
            yield (
                expose(image, gain, self._vignette, self._noise, top, left, self._sensor),
                fine[::_SAMPLES, ::_SAMPLES],
            )

    def _shadows(self, row: int) -> Array:
        key, hard = self.shot.setting.light.key, self.shot.setting.light.hard
        slant = key[:2] / max(key[2], 0.4) * (1.0 if hard else 0.35)
        marks = []
        for performance in self.performances:
            posture, h = performance.posture, performance.part.build.height
            joints = posture.joints[row]
            limbs = [
                (posture.pelvis[row], posture.neck[row], 0.085 * h),
                (posture.neck[row], joints[12], 0.045 * h),
            ]
            for side in (0, 1):
                limbs += [
                    (posture.heels[row, side], posture.toes[row, side], 0.03 * h),
                    (joints[side], joints[2 + side], 0.028 * h),
                    (joints[2 + side], joints[4 + side], 0.042 * h),
                    (joints[6 + side], joints[8 + side], 0.022 * h),
                    (joints[8 + side], joints[10 + side], 0.027 * h),
                ]
            if performance.item is not None and performance.part.item is not None:
                spot = performance.item[row, :3]
                limbs.append((spot, spot, 0.45 * performance.part.item.size[0]))
            if performance.ball is not None and not np.isnan(performance.ball[row, 0]):
                limbs.append((performance.ball[row], performance.ball[row], 0.1))
            for start, end, radius in limbs:
                high = max(0.0, 0.5 * (start[2] + end[2]))
                blur = 0.02 + (0.05 if hard else 0.22) * high
                dark = 0.62 if hard else 0.75 / (1 + 1.6 * high)
                a, b = start[:2] - slant * start[2], end[:2] - slant * end[2]
                marks.append((a[0], a[1], b[0], b[1], radius, blur, dark))
        return np.array(marks)
