"""VIA 3, the VGG Image Annotator for video: temporal segments of a project; seconds.

Its layout is that of ``data_format_version`` 3.1.1: a segment belongs to a view of a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidkd.annotations.media import counted, video_ids, without_ending
from vidkd.annotations.model import Annotations, Segment, VideoAnnotation
from vidkd.annotations.parse import Context, Reader, Source, short
from vidkd.files import write_json

_SEGMENT = "FILE1_Z2_XY0"
"""What an attribute of temporal segments is anchored to."""
_NAME, _SCORE = "TEMPORAL-SEGMENTS", "score"


def _read(source: Source, _: float | None) -> Annotations:
    root = Context(source.path)
    project = root.mapping(source.json, "the whole file")
    attributes = {
        key: root.mapping(item, "an attribute")
        for key, item in root.mapping(project.get("attribute"), '"attribute"').items()
        if isinstance(item, dict) and item.get("anchor_id") == _SEGMENT
    }
    views = {
        key: root.sequence(
            root.mapping(item, "a view").get("fid_list") or [], "the files of a view"
        )
        for key, item in root.mapping(project.get("view"), '"view"').items()
    }
    files = {
        key: root.mapping(item, "a file")
        for key, item in root.mapping(project.get("file"), '"file"').items()
    }
    scores = [key for key, item in attributes.items() if item.get("aname") == _SCORE]
    named = [key for key, item in attributes.items() if item.get("aname") == _NAME]
    order = [*named, *(key for key in attributes if key not in (*named, *scores))]
    found: dict[str, list[Segment]] = {view: [] for view in views}
    regions = unnamed = others = 0
    for item in root.mapping(project.get("metadata"), '"metadata"').values():
        item = root.mapping(item, "a metadata")
        view, times, values = str(item.get("vid")), item.get("z"), item.get("av")
        if not isinstance(times, list) or len(times) != 2 or item.get("xy"):
            regions += 1
            continue
        here = root.at(f"view {short(view)}")
        if view not in found:
            raise here.error("a segment belongs to this view, which does not exist", "correct it")
        values = here.mapping(values, "a segment's values")
        used = [key for key in order if str(values.get(key, "")).strip()]
        if not used:
            unnamed += 1
            continue
        others += len(used) - 1
        options = attributes[used[0]].get("options")
        value = str(values[used[0]])
        label = str(options.get(value, value)) if isinstance(options, dict) else value
        segment = here.segment(times[0], times[1], label.strip())
        score = next((values[key] for key in scores if values.get(key)), None)
        score = None if score is None else here.number(score, "a score")
        found[view].append(Segment(segment.start, segment.end, segment.label, score))
    notes = [
        f"{counted(count, what)} left out{why}"
        for count, what, why in (
            (regions, "region and time marker", ": no segments"),
            (unnamed, "segment", ", without a value"),
            (others, "further value", ": a segment has one label"),
        )
        if count
    ]
    shown: dict[str, str] = {}
    for view, fids in views.items():
        here = root.at(f"view {short(view)}")
        if len(fids) != 1 or str(fids[0]) not in files:
            raise here.error(f"shows {len(fids)} files, not one", "label each video in its view")
        entry = files[str(fids[0])]
        shown[view] = here.text(entry.get("fname") or entry.get("src"), "the name of a file")
    addresses = [name for name in shown.values() if name.startswith("/") or "://" in name]
    ids = video_ids(addresses)
    videos: dict[str, VideoAnnotation] = {}
    for view, name in shown.items():
        video = ids.get(name) or without_ending(name)
        if video in videos:
            raise root.error(f"video {short(video)} is in two views", "keep one of them")
        segments = tuple(sorted(found[view], key=lambda item: (item.start, item.end)))
        videos[video] = VideoAnnotation(video, segments=segments, file=name)
    options = attributes[named[0]].get("options") if named else None
    listed = [str(item) for item in options.values()] if isinstance(options, dict) else []
    used_labels = {item.label for items in found.values() for item in items}
    return Annotations.of_labels(videos, listed if used_labels <= set(listed) else (), notes)


def write(path: Path, annotations: Annotations) -> None:
    """Write a project with a view for each video; scores are a second attribute."""
    number = {name: str(count) for count, name in enumerate(annotations.classes)}
    videos = list(annotations.videos.values())
    scored = any(item.score is not None for video in videos for item in video.segments)
    attribute: dict[str, Any] = {
        "1": {
            "aname": _NAME,
            "anchor_id": _SEGMENT,
            "type": 4,
            "desc": "",
            "options": {count: name for name, count in number.items()},
            "default_option_id": "",
        }
    }
    if scored:
        attribute["2"] = {
            "aname": _SCORE,
            "anchor_id": _SEGMENT,
            "type": 1,
            "desc": "",
            "options": {},
            "default_option_id": "",
        }
    metadata, files = {}, {}
    for count, video in enumerate(videos, start=1):
        suffix = Path(video.file or "").suffix or ".mp4"
        files[str(count)] = {
            "fid": str(count),
            "fname": video.id + suffix,
            "type": 4,
            # 1: chosen by the user in the browser; 3: a file that VIA may open by its path.
            "loc": 1 if video.file is None else 3,
            "src": "" if video.file is None else video.file,
        }
        for place, item in enumerate(video.segments):
            values = {"1": number[item.label]}
            if item.score is not None:
                values["2"] = repr(float(item.score))
            metadata[f"{count}_{place}"] = {
                "vid": str(count),
                "flg": 0,
                "z": [item.start, item.end],
                "xy": [],
                "av": values,
            }
    keys = list(files)
    project = {
        "project": {
            "pid": "__VIA_PROJECT_ID__",
            "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
            "pname": path.stem,
            "creator": "vidkd",
            "created": 0,
            "data_format_version": "3.1.1",
            "vid_list": keys,
        },
        "config": {
            "file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}},
            "ui": {
                "file_content_align": "center",
                "file_metadata_editor_visible": True,
                "spatial_metadata_editor_visible": True,
                "temporal_segment_metadata_editor_visible": True,
                "spatial_region_label_attribute_id": "",
                "gtimeline_visible_row_count": "4",
            },
        },
        "attribute": attribute,
        "file": files,
        "metadata": metadata,
        "view": {key: {"fid_list": [key]} for key in keys},
    }
    write_json(path, project)


VIA = Reader(
    "VIA 3 project: temporal segments",
    _read,
    lambda source: {"project", "attribute", "metadata", "view"} <= source.object.keys(),
)
