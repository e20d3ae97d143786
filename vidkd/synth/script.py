"""What each person does and when: the plan behind a video's annotations."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from vidkd.synth.actions import REACH, Style
from vidkd.synth.gait import Gait, Path
from vidkd.synth.part import ARM_ACTIONS, Clip, Part, before_chair, item_ahead
from vidkd.synth.skeleton import to_world
from vidkd.synth.stage import Stage


class Author:
    """Writes one part: draws actions that are possible in the state reached so far."""

    def __init__(
        self,
        rng: np.random.Generator,
        stage: Stage,
        part: Part,
        seconds: float,
        calm: float,
        actions: Collection[str],
    ) -> None:
        self.rng, self.stage, self.part = rng, stage, part
        self.end = seconds - 0.25
        self.calm = calm
        self.actions = actions
        self.now = float(rng.uniform(0.3, 1.6)) * calm
        self.place = part.start
        self.seated = part.seated
        self.carrying = False
        self.ball = part.ball
        self.done = [""]

    # -- choosing -------------------------------------------------------------------------------

    def write(self) -> Part:
        """Fill the part with clips until its time is over."""
        misses = 0
        while misses < 12:
            options = self._options()
            names = list(options)
            weights = np.array([options[name] for name in names])
            name = names[int(self.rng.choice(len(names), p=weights / weights.sum()))]
            if getattr(self, f"_{name.replace(' ', '_')}")():
                misses = 0
                self.done.append(name)
                self._pause()
            else:
                misses += 1
        return self.part

    def _options(self) -> dict[str, float]:
        part = self.part
        free = not self.carrying
        one_hand = free or not (part.item and part.item.both)
        options: dict[str, float] = {}
        if self.seated:
            options["stand up"] = 3.0
        else:
            options["walk"] = 1.5
            if one_hand:
                options["run"] = 4.5
            if free:
                options |= {"jump": 1.0, "bow": 1.0, "kick": 1.1}
                if part.chair:
                    options["sit down"] = 4.5
            if part.item and not self.ball:
                options["put down" if self.carrying else "pick up"] = 6.0
            if part.plays and free:
                options["throw" if self.ball else "catch"] = 4.0
        if one_hand:
            options |= {"wave": 0.8, "point": 0.7}
            if part.bottle is not None:
                options["drink"] = 2.0
        if free and not self.ball:
            options["clap"] = 1.1
        options["fidget"] = 0.3
        # Nobody repeats the same thing over and over.
        return {
            name: weight * 0.6 ** self.done.count(name) * (0.3 if name == self.done[-1] else 1.0)
            for name, weight in options.items()
            if name in self.actions or name == "fidget"
        }

    def _pause(self) -> None:
        short = self.rng.uniform(0.2, 0.9)
        self.now += float(short if self.rng.random() < 0.75 else self.rng.uniform(0.9, 2.2)) * (
            self.calm
        )

    def _style(self, **fixed: float | int) -> Style:
        rng = self.rng
        values: dict[str, float | int] = {
            "size": float(rng.uniform(0.7, 1.3)),
            "side": self.part.side if rng.random() < 0.75 else 1 - self.part.side,
            "beat": float(rng.uniform(1.4, 2.6)),
        }
        return Style(**{**values, **fixed})  # type: ignore[arg-type]

    def _add(self, kind: str, duration: float, style: Style, **more: object) -> bool:
        """Append a clip if it fits in the time left."""
        if self.now + duration > self.end:
            return False
        clip = Clip(kind, self.now, self.now + duration, self.place, style, **more)  # type: ignore[arg-type]
        (self.part.arms if kind in ARM_ACTIONS else self.part.body).append(clip)
        self.now += duration
        return True

    # -- moving about ---------------------------------------------------------------------------

    def _turn(self, heading: float) -> bool:
        change = float(np.mod(heading - self.place[2] + np.pi, 2 * np.pi) - np.pi)
        if abs(change) < 0.12:
            return True
        duration = 0.45 + 0.42 * abs(change) * float(self.rng.uniform(0.85, 1.2))
        goal = self.place[2] + change
        if not self._add("turn", duration, Style(), turn_to=goal):
            return False
        self.place = (self.place[0], self.place[1], goal)
        return True

    def _face(self, lateral: bool = False, widest: float = 1.3) -> bool:
        """Turn to where the camera sees the coming action well, most of the time."""
        if self.seated or self.carrying or self.rng.random() < 0.12:
            return True
        towards = self.stage.towards_camera(self.place)
        away = abs(float(np.mod(self.place[2] - towards + np.pi, 2 * np.pi) - np.pi))
        if (0.8 < away < 1.9) if lateral else away < widest + 0.3:
            return True
        angle = self.rng.uniform(0.9, 1.7) if lateral else self.rng.uniform(0.0, widest)
        return self._turn(towards + float(angle) * (1 if self.rng.random() < 0.5 else -1))

    def _follow(self, path: Path, running: bool) -> bool:
        rng, height = self.rng, self.part.build.height / 1.72
        if running:
            gait = Gait(True, rng.uniform(2.0, 2.7), rng.uniform(0.78, 0.98) * height, 1.0)
        else:
            speed = rng.uniform(0.85, 1.35)
            gait = Gait(False, speed, (0.34 + 0.26 * speed) * height, rng.uniform(0.7, 1.3))
        duration = gait.duration(path.length)
        change = abs(float(np.mod(path.heading - self.place[2] + np.pi, 2 * np.pi) - np.pi))
        if self.now + 1.2 + 0.5 * change + duration > self.end:
            return False
        if not self._turn(path.heading):
            return False
        # Continue with the heading as accumulated, so that no turn jumps by a full circle.
        path = Path(path.x, path.y, self.place[2], path.curvature, path.length)
        start = self.now
        if not self._add(
            "run" if running else "walk", duration, self._style(), path=path, gait=gait
        ):
            return False
        self.place = path.end
        self._overlap(start, self.now, running)
        return True

    def _overlap(self, start: float, end: float, running: bool) -> None:
        """Sometimes lay an arm action over walking or running."""
        part = self.part
        if self.rng.random() > (0.3 if running else 0.6):
            return
        kinds = []
        if not (self.carrying and part.item and part.item.both):
            kinds = ["wave", "point"]
            if part.bottle is not None and not running:
                kinds += ["drink", "drink"]
            if not self.carrying and not self.ball:
                kinds.append("clap")
        kinds = [kind for kind in kinds if kind in self.actions]
        if not kinds:
            return
        kind = str(self.rng.choice(kinds))
        least = 2.2 if kind == "drink" else 1.5
        length = min(float(self.rng.uniform(least, least + 2.0)), end - start - 0.2)
        if length < least:
            return
        begin = start + float(self.rng.uniform(0.1, end - start - length))
        clip = Clip(kind, begin, begin + length, self.place, self._arm_style(kind))
        part.arms.append(clip)

    def _approach(self, goal: tuple[float, float]) -> bool:
        for attempt in range(12):
            bulge = float(self.rng.uniform(-0.5, 0.5)) * (attempt > 0)
            path = self.stage.straight(self.place, goal, bulge)
            if self.stage.free(path, reaching=True):
                return self._follow(path, running=False)
        return False

    def _walk(self) -> bool:
        path = self.stage.arc(self.rng, self.place, 1.3, 4.2)
        return path is not None and self._follow(path, running=False)

    def _run(self) -> bool:
        path = self.stage.arc(self.rng, self.place, 2.6, 7.5)
        return path is not None and self._follow(path, running=True)

    # -- with things ----------------------------------------------------------------------------

    def _sit_down(self) -> bool:
        chair = self.part.chair
        if chair is None:
            return False
        home = before_chair(chair)
        if np.hypot(home[0] - self.place[0], home[1] - self.place[1]) > 0.1:
            near = np.hypot(home[0] - self.place[0], home[1] - self.place[1]) < 0.6
            if near or not self._approach((float(home[0]), float(home[1]))):
                return False
        if not self._turn(chair[2]):
            return False
        duration = float(self.rng.uniform(1.5, 2.6))
        lean = float(self.rng.uniform(-0.05, 0.2))
        if not self._add("sit down", duration, self._style(lean=lean)):
            return False
        self.seated = True
        return True

    def _stand_up(self) -> bool:
        duration = float(self.rng.uniform(1.5, 2.6))
        lean = float(self.rng.uniform(-0.05, 0.2))
        self.seated = not self._add("stand up", duration, self._style(lean=lean))
        return not self.seated

    def _pick_up(self) -> bool:
        part = self.part
        there = part.item_places[-1]
        dx, dy = there[0] - self.place[0], there[1] - self.place[1]
        away = float(np.hypot(dx, dy))
        if away > REACH + 0.05:
            share = 1 - REACH / away
            goal = (self.place[0] + dx * share, self.place[1] + dy * share)
            if away - REACH < 0.6 or not self._approach(goal):
                return False
        dx, dy = there[0] - self.place[0], there[1] - self.place[1]
        if not self._turn(float(np.arctan2(-dx, dy))):
            return False
        if not self._add("pick up", float(self.rng.uniform(1.7, 3.0)), self._lift_style()):
            return False
        self.carrying = True
        self.stage.obstacles.pop("item", None)
        return True

    def _put_down(self) -> bool:
        lies = item_ahead(self.place)
        point = np.array([lies[:2]])
        if not self.stage.inside(point, 0.4)[0] or not self.stage.clear(point)[0]:
            return False
        chair = self.part.chair
        if chair and np.hypot(*(before_chair(chair) - lies)[:2]) < 0.75:
            return False
        if not self._add("put down", float(self.rng.uniform(1.7, 3.0)), self._lift_style()):
            return False
        self.carrying = False
        self.part.item_places.append(lies)
        self.stage.obstacles["item"] = (lies[0], lies[1], 0.0)
        return True

    def _lift_style(self) -> Style:
        return self._style(variant=int(self.rng.random() < 0.5), side=self.part.side)

    # -- on the spot ----------------------------------------------------------------------------

    def _jump(self) -> bool:
        count = int(self.rng.integers(1, 4))
        duration = count * float(self.rng.uniform(1.1, 1.45)) + (0.3 if count == 1 else 0.0)
        if not self._face() or (self.ball and self.carrying):
            return False
        return self._add("jump", duration, self._style(variant=count - 1))

    def _bow(self) -> bool:
        duration = float(self.rng.uniform(1.8, 3.4))
        return self._face() and self._add(
            "bow", duration, self._style(variant=int(self.rng.random() < 0.4))
        )

    def _kick(self) -> bool:
        ahead = to_world(np.array(self.place), np.array([[0.0, 0.7, 0.0], [0.0, 0.3, 0.0]]))
        if not self._face() or not bool(np.all(self.stage.clear(ahead[:, :2]))):
            return False
        return self._add("kick", float(self.rng.uniform(1.5, 2.1)), self._style())

    def _arm_style(self, kind: str) -> Style:
        rng, part = self.rng, self.part
        busy = None
        if self.carrying or self.ball:
            busy = part.side
        fixed: dict[str, float | int] = {}
        if busy is not None:
            fixed["side"] = 1 - busy
        if kind == "wave":
            fixed["variant"] = int(
                rng.choice(3, p=[0.6, 0.25, 0.15] if busy is None else [0.7, 0.3, 0])
            )
        elif kind == "clap":
            fixed |= {
                "variant": int(rng.random() < 0.1),
                "lean": float(rng.uniform(-0.3, 0.6)),
                "beat": float(rng.uniform(1.6, 3.0)),
            }
        elif kind == "point":
            fixed |= {"variant": int(rng.integers(3)), "lean": float(rng.uniform(-0.25, 1.5))}
        elif kind == "drink":
            fixed["side"] = part.bottle or 0
        elif kind == "fidget":
            fixed |= {
                "variant": int(rng.integers(4)) if busy is None else 3,
                "lean": float(rng.choice([-1.0, 1.0])),
            }
        return self._style(**fixed)

    def _arm(self, kind: str, shortest: float, longest: float) -> bool:
        # From the side, the swing of a wave or a clap is lost.
        if not self._face(widest=1.0 if kind in {"wave", "clap"} else 1.3):
            return False
        return self._add(kind, float(self.rng.uniform(shortest, longest)), self._arm_style(kind))

    def _wave(self) -> bool:
        return self._arm("wave", 1.7, 4.5)

    def _clap(self) -> bool:
        return self._arm("clap", 1.6, 4.5)

    def _point(self) -> bool:
        return self._arm("point", 1.6, 3.5)

    def _drink(self) -> bool:
        busy = self.carrying or self.ball
        if busy and self.part.bottle == self.part.side:
            return False
        return self._arm("drink", 2.6, 5.0)

    def _fidget(self) -> bool:
        return self._arm("fidget", 1.5, 3.5)

    def _throw(self) -> bool:
        if not self._face(lateral=True):
            return False
        style = self._style(variant=int(self.rng.integers(3)), side=self.part.side)
        if not self._add("throw", float(self.rng.uniform(1.5, 2.3)), style):
            return False
        self.ball = False
        return True

    def _catch(self) -> bool:
        # The ball needs time to fly in before the movement's first half is over.
        if self.now < 0.6 or not self._face(lateral=True):
            return False
        style = self._style(variant=int(self.rng.integers(3)), side=self.part.side)
        if not self._add("catch", float(self.rng.uniform(1.5, 2.3)), style):
            return False
        self.ball = True
        return True
