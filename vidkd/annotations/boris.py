"""BORIS: projects (.boris), and the tables of events that it exports.

Layouts are those of the project format 7.0 and of the tables of versions 3 to 9. Events of a
project are counted from the beginning of the first media file, plus the observation's time offset;
a state is begun by one event and ended by the next of the same subject, behaviour and modifiers.
"""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidkd.annotations.media import lanes, video_ids
from vidkd.annotations.model import Annotations, Segment, VideoAnnotation
from vidkd.annotations.parse import Context, Reader, Source, short
from vidkd.files import write_json

_NO_SUBJECT = "No focal subject"


@dataclass
class _Video:
    """One media file, and what is known of it."""

    segments: list[Segment] = field(default_factory=list)
    length: float | None = None
    rate: float | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


def _read_project(source: Source, _: float | None) -> Annotations:
    root = Context(source.path)
    project = root.mapping(source.json, "the whole file")
    behaviours = root.mapping(project.get("behaviors_conf", {}), "the ethogram")
    kinds = {
        str(item.get("code")): str(item.get("type", "")).lower()
        for item in (root.mapping(entry, "a behaviour") for entry in behaviours.values())
    }
    found: dict[str, _Video] = {}
    notes: list[str] = []
    for name, entry in root.mapping(project.get("observations"), '"observations"').items():
        here = root.at(f"observation {short(name)}")
        entry = here.mapping(entry, "the entry")
        files = _media(here, entry, notes)
        if files:
            _observe(here, name, entry, files, kinds, found, notes)
        else:
            notes.append(f"{here.place}: left out, because it is not of a media file")
    return _annotations(found, list(kinds), notes)


def _media(here: Context, entry: dict[str, Any], notes: list[str]) -> list[str]:
    """Return the media files of the first player, which play one after the other."""
    players = entry.get("file")
    players = here.mapping(players, '"file"') if players else {}
    used = [
        [here.text(item, "a media file") for item in here.sequence(files, "a player's files")]
        for _, files in sorted(players.items())
        if files
    ]
    if len(used) > 1:
        others = ", ".join(Path(item).name for files in used[1:] for item in files)
        notes.append(f"{here.place}: the first player's video is taken, not {others}")
    return used[0] if used else []


def _observe(
    here: Context,
    name: str,
    entry: dict[str, Any],
    files: list[str],
    kinds: dict[str, str],
    found: dict[str, _Video],
    notes: list[str],
) -> None:
    offset = here.number(entry.get("time offset", 0), "the time offset")
    information = entry.get("media_info")
    information = here.mapping(information, '"media_info"') if information else {}
    lengths = here.mapping(information.get("length", {}), "the lengths of media")
    rates = here.mapping(information.get("fps", {}), "the rates of media")
    starts, clock = [], 0.0
    for file in files:
        video = found.setdefault(file, _Video())
        video.length = here.positive(lengths.get(file), "a length") or video.length
        video.rate = here.positive(rates.get(file), "a rate") or video.rate
        video.names.append(name)
        variables = entry.get("independent_variables")
        variables = here.mapping(variables, "the variables") if variables else {}
        video.attributes |= {key: str(value) for key, value in variables.items() if value != ""}
        starts.append(clock)
        if video.length is None and file is not files[-1]:
            raise here.error(
                f"the length of {Path(file).name} is missing, after which another video follows",
                "open the project in BORIS with the videos at hand, and save it",
            )
        clock += video.length or 0.0
    open_states: dict[tuple[str, ...], float] = {}
    events = []
    for item in here.sequence(entry.get("events", []), '"events"'):
        event = here.sequence(item, "an event")
        if len(event) < 3:
            raise here.error(f"an event is too short: {short(event)}", "correct the file")
        events.append((here.number(event[0], "the time of an event"), event))
    for time, event in sorted(events, key=lambda pair: pair[0]):
        label = here.text(event[2], "a behaviour")
        key = (label, str(event[1]), str(event[3]) if len(event) > 3 else "")
        if "point" in kinds.get(label, "state"):
            begun = time
        elif key in open_states:
            begun = open_states.pop(key)
        else:
            open_states[key] = time
            continue
        _add(begun - offset, time - offset, label, files, starts, found)
    notes.extend(
        f"{here.place}: {label!r} begins at {time:g} s and has no end; left out"
        for (label, *_), time in open_states.items()
    )


def _add(
    start: float,
    end: float,
    label: str,
    files: Sequence[str],
    starts: Sequence[float],
    found: dict[str, _Video],
) -> None:
    """Add a segment to the video in which it lies, or its parts to several."""
    last = len(files) - 1
    for number, (file, begin) in enumerate(zip(files, starts, strict=True)):
        stop = starts[number + 1] if number < last else float("inf")
        low, high = max(start, begin) if number else start, min(end, stop)
        if (low < high or (start == end == low < stop)) and low < stop:
            found[file].segments.append(Segment(low - begin, high - begin, label))


def _annotations(found: dict[str, _Video], classes: Iterable[str], notes: list[str]) -> Annotations:
    ids = video_ids(found)
    for file, video in found.items():
        # An observation that is called like its video tells the video's folders, too.
        if len(video.names) == 1 and f"/{video.names[0]}".endswith(f"/{ids[file]}"):
            ids[file] = video.names[0]
        elif len(set(video.names)) > 1:
            notes.append(f"video {ids[file]!r}: {len(set(video.names))} observations are joined")
    videos = {
        ids[file]: VideoAnnotation(
            id=ids[file],
            subset=video.attributes.get("subset", ""),
            duration=video.length,
            frame_rate=video.rate,
            segments=tuple(sorted(video.segments, key=lambda item: (item.start, item.end))),
            attributes={key: text for key, text in video.attributes.items() if key != "subset"},
            file=file,
        )
        for file, video in found.items()
    }
    return Annotations.of_labels(videos, classes, notes)


def _table(source: Source) -> list[list[str]]:
    if source.path.is_dir() or "Behavior" not in source.text[:20_000]:
        return []
    head = source.text[:20_000]
    delimiter = "\t" if head.count("\t") > head.count(",") else ","
    try:
        return list(csv.reader(io.StringIO(source.text, newline=""), delimiter=delimiter))
    except csv.Error:
        return []


def _header(rows: list[list[str]]) -> int | None:
    """Return the number of the row that names the columns."""
    for number, row in enumerate(rows[:200]):
        names = {name.strip() for name in row}
        if {"Subject", "Behavior"} <= names and names & {"Start (s)", "Time", "Time (s)"}:
            return number
    return None


def _read_table(source: Source, _: float | None) -> Annotations:
    """Read aggregated events (start and stop in a row) or tabular ones (a row for each)."""
    root, rows = Context(source.path), _table(source)
    number = _header(rows)
    if number is None:
        raise root.error("has no columns Subject, Behavior and Start (s) or Time", "check the file")
    names = [name.strip() for name in rows[number]]
    # What stands above the columns in older tables are lines of a name and its value.
    above = {row[0].strip(): row[1].strip() for row in rows[:number] if len(row) > 1 and row[0]}
    found: dict[str, _Video] = {}
    notes: list[str] = []
    open_states: dict[tuple[str, ...], float] = {}
    for line, row in enumerate(rows[number + 1 :], start=number + 2):
        if not any(cell.strip() for cell in row):
            continue
        here = root.at(f"row {line}")
        if len(row) != len(names):
            raise here.error(f"has {len(row)} fields, not {len(names)}", "correct it")
        cells = dict(zip(names, (cell.strip() for cell in row), strict=True))
        file = _first(cells, "Media file name", "Media file path", "Media file", "Source") or ""
        file = file.split(";")[0].partition(":")[2] if file.startswith("player #") else file
        if not file or file.upper() == "LIVE" or cells.get("Observation type") == "Live":
            notes.append(f"{here.place}: left out, because it is not of a media file")
            continue
        name = cells.get("Observation id") or above.get("Observation id", "")
        offset = here.number(_first(cells, "Time offset (s)") or "0", "the time offset")
        video = found.setdefault(file, _Video())
        video.names.append(name)
        length = _first(cells, "Media duration (s)", "Total length")
        if length and length != "NA" and ";" not in length:
            video.length = here.positive(length, "the duration")
        rate = _first(cells, "FPS", "FPS (frame/s)")
        if rate and rate != "NA" and ";" not in rate:
            video.rate = here.positive(rate, "the rate")
        label = here.text(cells["Behavior"], "a behaviour")
        if "Start (s)" in cells:
            times = cells["Start (s)"], cells.get("Stop (s)", "")
            stop = times[0] if times[1] in ("", "NA") else times[1]
            segment = here.segment(times[0], stop, label)
            video.segments.append(Segment(segment.start - offset, segment.end - offset, label))
            continue
        time = here.number(_first(cells, "Time", "Time (s)"), "a time") - offset
        kind = (_first(cells, "Behavior type", "Status") or "").upper()
        modifiers = "|".join(cells[key] for key in names if key.startswith("Modifier"))
        key = (name, file, label, cells["Subject"], modifiers)
        if kind == "START":
            open_states[key] = time
        elif kind == "STOP" and key not in open_states:
            notes.append(f"{here.place}: {label!r} ends and has not begun; left out")
        else:
            video.segments.append(Segment(open_states.pop(key, time), time, label))
    files: dict[str, str] = {}
    for file, video in found.items():
        for name in set(video.names):
            if files.setdefault(name, file) != file:
                # Times are counted through, and the table does not say where a video begins.
                raise root.at(f"observation {short(name)}").error(
                    f"goes over several videos ({Path(files[name]).name}, {Path(file).name}),"
                    " of which a table does not tell the beginnings",
                    "read the project (.boris) instead",
                )
    notes.extend(
        f"observation {name!r}: {label!r} begins at {time:g} s and has no end; left out"
        for (name, _, label, *_), time in open_states.items()
    )
    return _annotations(found, (), notes)


def _first(cells: dict[str, str], *names: str) -> str | None:
    return next((cells[name] for name in names if cells.get(name)), None)


def write(path: Path, annotations: Annotations) -> None:
    """Write a project: an observation for each video, called by its id; times in milliseconds.

    A class is a point event if all its segments are instants, else a state. Segments of one class
    that overlap belong to different subjects, since BORIS ends one state before the next begins.
    """
    lengths = {
        name: [
            item.end - item.start
            for video in annotations.videos.values()
            for item in video.segments
            if item.label == name
        ]
        for name in annotations.classes
    }
    points = {name for name, items in lengths.items() if items and not any(items)}
    behaviours = {
        str(number): {
            "type": "Point event" if name in points else "State event",
            "key": "",
            "code": name,
            "description": "",
            "color": "",
            "category": "",
            "modifiers": "",
            "excluded": "",
            "coding map": "",
        }
        for number, name in enumerate(annotations.classes)
    }
    observations: dict[str, Any] = {}
    variables: dict[str, None] = {}
    most = 1
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    for video in annotations.videos.values():
        file = video.file or f"{video.id}.mp4"
        events: list[list[Any]] = []
        for name in annotations.classes:
            same = [item for item in video.segments if item.label == name]
            shared = [same] if name in points else lanes(same)
            most = max(most, len(shared))
            for number, lane in enumerate(shared):
                subject = "" if number == 0 else f"overlap {number + 1}"
                for item in lane:
                    times = [item.start] if name in points else [item.start, item.end]
                    events += ([round(time, 3), subject, name, "", "", "NA"] for time in times)
        facts = video.attributes | ({"subset": video.subset} if video.subset else {})
        variables |= dict.fromkeys(facts)
        observations[video.id] = {
            "file": {str(number): [file] if number == 1 else [] for number in range(1, 9)},
            "type": "MEDIA",
            "date": now,
            "description": "",
            "time offset": 0.0,
            "events": sorted(events, key=lambda event: event[0]),
            "observation time interval": [0, 0],
            "independent_variables": facts,
            "visualize_spectrogram": False,
            "visualize_waveform": False,
            "close_behaviors_between_videos": False,
            "media_info": {
                "length": {file: video.duration} if video.duration else {},
                "fps": {file: video.frame_rate} if video.frame_rate else {},
                "hasVideo": {file: True},
                "hasAudio": {file: False},
                "offset": {"1": 0.0},
            },
        }
    project = {
        "time_format": "hh:mm:ss",
        "project_date": now,
        "project_name": path.stem,
        "project_description": "",
        "project_format_version": "7.0",
        "subjects_conf": {
            str(number): {"key": "", "name": f"overlap {number + 2}", "description": ""}
            for number in range(most - 1)
        },
        "behaviors_conf": behaviours,
        "observations": observations,
        "behavioral_categories": [],
        "behavioral_categories_config": {},
        "independent_variables": {
            str(number): {
                "label": name,
                "description": "",
                "type": "text",
                "default value": "",
                "possible values": "",
            }
            for number, name in enumerate(variables)
        },
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    write_json(path, project)


BORIS = Reader(
    "BORIS project (.boris): state and point events",
    _read_project,
    lambda source: {"behaviors_conf", "observations"} <= source.object.keys(),
)
BORIS_TABLE = Reader(
    "BORIS, tables of aggregated or tabular events (.csv, .tsv)",
    _read_table,
    lambda source: _header(_table(source)) is not None,
)
