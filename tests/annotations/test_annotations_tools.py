"""Files of annotation tools and editors: their own layouts, both ways, and damaged ones.

The layouts here are those of files that the tools themselves wrote: of ELAN 2.7 to 3.0, of BORIS's
own test projects and tables, of projects of VIA 3, of Praat, and of OpenTimelineIO's samples.
"""

from __future__ import annotations

import json
import string
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pympi
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidkd.annotations import (
    READERS,
    Annotations,
    Segment,
    VideoAnnotation,
    load_annotations,
    recognise,
)
from vidkd.annotations.media import video_ids
from vidkd.annotations.subsets import like
from vidkd.annotations.writers import EXACT, FRAMES, KINDS, MILLISECONDS, WRITERS, write_as
from vidkd.errors import AnnotationError, UsageError, VidkdError

RATE = 25.0
UNITS = {FRAMES: 1 / RATE, MILLISECONDS: 1e-3, "microseconds": 1e-6, EXACT: 0.0}

LABELS = st.sampled_from(["walk", "sit down", 'a "b" <c> & d', "Öl, 行く; e=f#g\\h", "1"])
TIMES = st.one_of(
    st.integers(0, 400).map(lambda frame: frame / RATE),
    st.floats(0, 3000, allow_subnormal=False),
)


@st.composite
def annotations(draw: st.DrawFn) -> Annotations:
    names = draw(
        st.lists(st.sampled_from(["a b", "P01/cam1", "ü/x", "c"]), min_size=1, unique=True)
    )
    videos = {}
    for name in names:
        segments = []
        for _ in range(draw(st.integers(0, 5))):
            start, end = sorted((draw(TIMES), draw(TIMES)))
            score = draw(st.none() | st.floats(0, 1))
            segments.append(Segment(start, end, draw(LABELS), score))
        # A file holds either what a person labelled or what a model found.
        if any(item.score is None for item in segments):
            segments = [replace(item, score=None) for item in segments]
        videos[name] = VideoAnnotation(
            id=name,
            subset=draw(st.sampled_from(["", "training"])),
            duration=draw(st.none() | st.floats(3000, 4000)),
            frame_rate=RATE,
            segments=tuple(segments),
        )
    return Annotations.of_labels(videos, ["unused"])


def read_back(folder: Path, name: str, found: Annotations) -> tuple[Annotations, list[str]]:
    writer = WRITERS[name]
    target = folder / "out" if writer.one_video else folder / f"out{writer.ending}"
    _, notes = write_as(target, name, found)
    if name != "audacity" or any(video.segments for video in found.videos.values()):
        assert recognise(target) == name  # labels of nothing are an empty file
    return load_annotations(target, name, frame_rate=RATE if name == "edl" else None), notes


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(found=annotations())
def test_what_is_written_is_read_back(name: str, found: Annotations) -> None:
    """Times to half the tool's unit; and whatever is not read back has been said."""
    writer = WRITERS[name]
    if name == "label-studio":  # segments with scores are predictions, which nobody reads as labels
        videos = {
            key: replace(
                video, segments=tuple(replace(item, score=None) for item in video.segments)
            )
            for key, video in found.videos.items()
        }
        found = replace(found, videos=videos)
    with tempfile.TemporaryDirectory() as folder:
        back, notes = read_back(Path(folder), name, found)
    unit = UNITS[writer.unit]
    assert set(back.videos) == set(found.videos)
    for key, video in found.videos.items():
        got = back.videos[key]
        before = sorted(video.segments, key=lambda item: (item.label, item.start, item.end))
        assert sorted(item.label for item in got.segments) == [item.label for item in before]
        for item in before:
            # Rounding to the unit, and to one whole unit where there are no instants.
            slack = unit / 2 + (unit if item.end - item.start < unit else 0) + 1e-9
            assert any(
                other.label == item.label
                and abs(other.start - item.start) <= slack
                and abs(other.end - item.end) <= slack
                and (other.score == item.score or "scores" not in writer.holds)
                for other in got.segments
            ), item
        kept = {
            "subsets": got.subset == video.subset,
            "durations": got.duration == video.duration,
            "frame rates": got.frame_rate == video.frame_rate,
        }
        for kind, same in kept.items():
            if name == "textgrid" and video.duration is None:
                continue  # a grid has to have an end
            assert same or any(kind[:-1] in note and "left out" in note for note in notes)
    lost = "unused" not in back.classes
    assert lost == any("unused class left out" in note for note in notes)


def write(path: Path, content: str | dict[str, Any] | list[Any], encoding: str = "utf-8") -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(text.encode(encoding))
    return path


def segments(found: Annotations, video: str) -> list[tuple[float, float, str]]:
    return [(item.start, item.end, item.label) for item in found.videos[video].segments]


EAF = """<?xml version="1.0" encoding="{encoding}"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2014-10-28T10:14:04+01:00" FORMAT="3.0" VERSION="3.0"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/x/sound.wav" MIME_TYPE="audio/x-wav"/>
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/x/My%20film.mp4" MIME_TYPE="video/mp4"
        TIME_ORIGIN="500" RELATIVE_MEDIA_URL="./My%20film.mp4"/>
    <PROPERTY NAME="lastUsedAnnotationId">4</PROPERTY>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1000"/>
    <TIME_SLOT TIME_SLOT_ID="ts2"/>
    <TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="2000"/>
    <TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="2345"/>
  </TIME_ORDER>
  <TIER LINGUISTIC_TYPE_REF="l" TIER_ID="gehen">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
      <ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER LINGUISTIC_TYPE_REF="l" TIER_ID="stützen">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
      <ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER LINGUISTIC_TYPE_REF="d" PARENT_REF="gehen" TIER_ID="notes">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a1">
      <ANNOTATION_VALUE>x</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
  <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="l" TIME_ALIGNABLE="true" GRAPHIC_REFERENCES="false"/>
  <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="d" CONSTRAINTS="Symbolic_Association"
      TIME_ALIGNABLE="false"/>
</ANNOTATION_DOCUMENT>
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_elan(tmp_path: Path, encoding: str) -> None:
    text = EAF.format(encoding=encoding.upper(), value="links")
    file = write(tmp_path / "labels.eaf", text, encoding)
    found = load_annotations(file)
    # The video's file and its offset, the slot without a time, tiers where values are mostly empty.
    expected = [(1.5, 2.0, "gehen"), (2.0, 2.5, "gehen"), (2.5, 2.845, "stützen")]
    assert segments(found, "My film") == expected
    assert any("1 annotation of dependent tiers (notes) left out" in note for note in found.notes)
    assert any("1 value left out" in note for note in found.notes)
    values = load_annotations(file, "elan-values")
    assert segments(values, "My film") == [(1.5, 2.0, "links")]
    assert "2 annotations without a value left out" in values.notes


def test_a_folder_is_read_as_one_video_a_file(tmp_path: Path) -> None:
    (tmp_path / "P01").mkdir()
    text = EAF.format(encoding="UTF-8", value="")
    write(tmp_path / "P01/first.eaf", text)
    assert list(load_annotations(tmp_path).videos) == ["P01/My film"]
    # Two files that name one video, as those made from one template do, go by their own names.
    write(tmp_path / "P01/second.eaf", text)
    assert list(load_annotations(tmp_path).videos) == ["P01/first", "P01/second"]


def test_labels_corrected_in_a_tool_get_their_subsets_back(tmp_path: Path) -> None:
    items = (Segment(1.0, 2.0, "walk"), Segment(1.5, 3.0, "walk"), Segment(4.0, 5.0, "sit"))
    video = VideoAnnotation("P01/v", "testing", 9.0, 25.0, items, {"subject": "P01"})
    before = Annotations(("walk", "sit", "run"), {"P01/v": video})
    write_as(tmp_path / "v.eaf", "elan", before)
    # A new annotation in ELAN has no value until somebody types one: the tier is its class then.
    text = (tmp_path / "v.eaf").read_text()
    (tmp_path / "v.eaf").write_text(text.replace("<ANNOTATION_VALUE>walk<", "<ANNOTATION_VALUE><"))
    found = load_annotations(tmp_path / "v.eaf")
    assert segments(found, "v") == [(item.start, item.end, item.label) for item in items]
    back = like(found, before, tmp_path / "before.json")
    assert back == before
    other = Annotations.of_labels({"w": VideoAnnotation("w")})
    with pytest.raises(AnnotationError, match="has no video of these annotations"):
        like(found, other, tmp_path / "other.json")


def test_elan_and_praat_files_read_by_pympi(tmp_path: Path) -> None:
    items = (Segment(0.0, 1.25, "walk"), Segment(1.0, 2.5, "walk"), Segment(0.5, 1.0, "ü"))
    found = Annotations.of_labels({"v": VideoAnnotation("v", segments=items, file="/x/v.mp4")})
    expected = sorted((item.start, item.end, item.label) for item in items)
    write_as(tmp_path / "v.eaf", "elan", found)
    elan = pympi.Eaf(str(tmp_path / "v.eaf"))
    assert [item["MEDIA_URL"] for item in elan.get_linked_files()] == ["file:///x/v.mp4"]
    assert expected == sorted(
        (start / 1000, end / 1000, value)
        for tier in elan.get_tier_names()
        for start, end, value in elan.get_annotation_data_for_tier(tier)
    )
    write_as(tmp_path / "v.TextGrid", "textgrid", found)
    grid = pympi.Praat.TextGrid(str(tmp_path / "v.TextGrid"))
    assert expected == sorted(
        (start, end, value)
        for tier in grid.get_tiers()
        for start, end, value in tier.get_all_intervals()
        if value
    )


@pytest.mark.parametrize("name", ["srt", "webvtt", "chapters"])
def test_subtitles_and_chapters_read_by_ffmpeg(tmp_path: Path, name: str) -> None:
    items = (Segment(0.25, 1.5, "walk"), Segment(3661.001, 3700.0, "sit = down; ü"))
    path = tmp_path / f"v{WRITERS[name].ending}"
    write_as(path, name, Annotations.of_labels({"v": VideoAnnotation("v", segments=items)}))
    with av.open(str(path)) as file:
        if name == "chapters":
            got = [
                (
                    item["start"] * item["time_base"],
                    item["end"] * item["time_base"],
                    item["metadata"]["title"],
                )
                for item in file.chapters()
            ]
        else:
            base = Fraction(file.streams[0].time_base)
            got = [
                (packet.pts * base, (packet.pts + packet.duration) * base, bytes(packet).decode())
                for packet in file.demux()
                if packet.size
            ]
    assert [(float(start), float(end), text) for start, end, text in got] == [
        (item.start, item.end, item.label) for item in items
    ]


def project(**changes: Any) -> dict[str, Any]:
    """A project in the layout of BORIS 7 to 9."""
    observation = {
        "file": {"1": ["/home/x/one.mp4", "/home/x/two.mp4"], "2": []},
        "type": "MEDIA",
        "date": "2018-05-29T11:08:25",
        "description": "",
        "time offset": 100.0,
        "independent_variables": {"subject": "P1", "weight": ""},
        "media_info": {
            "length": {"/home/x/one.mp4": 60.0, "/home/x/two.mp4": 30.0},
            "fps": {"/home/x/one.mp4": 25.0, "/home/x/two.mp4": 25.0},
        },
        # Of two subjects at once, one of them over both videos; two modifiers; one has no end.
        "events": [
            [110.5, "", "walk", "", "", 1],
            [112.0, "S2", "walk", "", "", 1],
            [113.25, "", "walk", "", "", 1],
            [120.0, "", "jump", "", "", 1],
            [130.0, "", "walk", "fast", "", 1],
            [131.0, "", "walk", "slow", "", 1],
            [132.0, "", "walk", "fast", "", 1],
            [170.0, "S2", "walk", "", "", 1],
        ],
        **changes,
    }
    kinds = {"walk": "State event", "jump": "Point event", "never": "State event"}
    return {
        "time_format": "hh:mm:ss",
        "project_format_version": "7.0",
        "behaviors_conf": {
            str(number): {"code": code, "type": kind, "key": "w", "modifiers": {}}
            for number, (code, kind) in enumerate(kinds.items())
        },
        "subjects_conf": {},
        "observations": {"obs": observation},
    }


def test_boris_project(tmp_path: Path) -> None:
    found = load_annotations(write(tmp_path / "p.boris", project()))
    assert found.classes == ("walk", "jump", "never")
    assert segments(found, "one") == [
        (10.5, 13.25, "walk"),
        (12.0, 60.0, "walk"),
        (20.0, 20.0, "jump"),
        (30.0, 32.0, "walk"),
    ]
    assert segments(found, "two") == [(0.0, 10.0, "walk")]
    one = found.videos["one"]
    assert (one.duration, one.frame_rate, one.attributes) == (60.0, 25.0, {"subject": "P1"})
    assert any("begins at 131 s and has no end" in note for note in found.notes)
    lacking = project(media_info={"length": {}})
    with pytest.raises(AnnotationError, match=r"length of one\.mp4 is missing"):
        load_annotations(write(tmp_path / "p.boris", lacking))


AGGREGATED = """Observation id,Observation date,Description,Observation type,Source,Time offset (s)\
,Media duration (s),FPS,Subject,Behavior,Behavioral category,Behavior type,Start (s),\
Stop (s),Media file name,Comment start
o1,2016-12-01,,Media file(s),player #1:one.mp4;,0.0,60.0,25.0,No focal subject,walk,,STATE,\
1.800,8.125,/x/one.mp4,
o1,2016-12-01,,Media file(s),player #1:one.mp4;,0.0,60.0,25.0,No focal subject,jump,,POINT,\
9.5,NA,/x/one.mp4,
"""
TABULAR = """Observation id,o1,,,,,,,
,,,,,,,,
Player #1,one.mp4,,,,,,,
Time offset (s),0.0,,,,,,,
Time,Media file path,Total length,FPS,Subject,Behavior,Behavioral category,Comment,Status
1.800,/x/one.mp4,60.0,25.0,,walk,,,START
9.5,/x/one.mp4,60.0,25.0,,jump,,,POINT
8.125,/x/one.mp4,60.0,25.0,,walk,,,STOP
"""


@pytest.mark.parametrize("text", [AGGREGATED, TABULAR, AGGREGATED.replace(",", "\t")])
def test_boris_tables(tmp_path: Path, text: str) -> None:
    found = load_annotations(write(tmp_path / "t.tsv", text))
    assert segments(found, "one") == [(1.8, 8.125, "walk"), (9.5, 9.5, "jump")]
    assert (found.videos["one"].duration, found.videos["one"].frame_rate) == (60.0, 25.0)
    with pytest.raises(AnnotationError, match="goes over several videos"):
        load_annotations(write(tmp_path / "t.tsv", text.replace("/x/one.mp4", "/x/two.mp4", 1)))


def region(start: float, end: float, label: str, **more: Any) -> dict[str, Any]:
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}
    names = {"from_name": "videoLabels", "to_name": "video", "origin": "manual"}
    return {"id": "x", "type": "timelinelabels", "value": value, **names, **more}


def test_label_studio(tmp_path: Path) -> None:
    done = {"id": 1, "was_cancelled": False, "result": [region(1, 24, "a"), region(49, 49, "b")]}
    sound = {
        "type": "labels",
        "original_length": 9.0,
        "value": {"start": 1.25, "end": 3.5, "channel": 0, "labels": ["talk"]},
    }
    choice = {"type": "choices", "value": {"choices": ["good"]}}
    tasks = [
        {"id": 1, "data": {"video": "/data/upload/3/0a1b2c3d-clip one.mp4"}, "annotations": [done]},
        {
            "id": 2,
            "data": {"video_url": "https://x.org/a/My%20film.mp4?sig=1", "fps": 50},
            "annotations": [{"result": [region(51, 100, "a"), sound, choice]}],
        },
        {
            "id": 3,
            "data": {"video": "/data/local-files/?d=P02/clip%20two.mp4"},
            "annotations": [{"was_cancelled": True, "result": [region(1, 2, "no")]}],
            "predictions": [{"result": [region(1, 2, "no", score=0.5)]}],
        },
    ]
    found = load_annotations(write(tmp_path / "ls.json", tasks))
    assert segments(found, "clip one") == [(0.0, 1.0, "a"), (2.0, 49 / 24, "b")]
    assert segments(found, "My film") == [(1.0, 2.0, "a"), (1.25, 3.5, "talk")]
    assert list(found.videos) == ["clip one", "My film"]
    assert "1 task left out: nobody has annotated them" in found.notes
    assert "1 prediction left out: they are no labels" in found.notes
    assert "1 choices left out: no segments" in found.notes
    assert any("24 per second assumed" in note for note in found.notes)
    faster = load_annotations(tmp_path / "ls.json", rate_of={"clip one": 12.0}.get)
    assert segments(faster, "clip one")[0] == (0.0, 2.0, "a")
    minimal = [
        {
            "id": 5,
            "video": "/data/upload/3/0a1b2c3d-clip.mp4",
            "annotation_id": 9,
            "annotator": 1,
            "videoLabels": [{"ranges": [{"start": 13, "end": 24}], "timelinelabels": ["左"]}],
        },
    ]
    found = load_annotations(write(tmp_path / "min.json", minimal))
    assert segments(found, "clip") == [(0.5, 1.0, "左")]


def test_names_of_videos_stay_apart() -> None:
    def ids(*files: str) -> list[str]:
        return list(video_ids(files).values())

    assert ids("/x/a.mp4", "C:\\x\\b c.AVI", "https://h/d%20e.mp4?x=1") == ["a", "b c", "d e"]
    assert ids("/x/1/a.mp4", "/x/2/a.mp4", "/x/2/b.mp4") == ["1/a", "2/a", "b"]
    assert ids("a.mp4", "a.avi", "b.mp4") == ["a.mp4", "a.avi", "b"]
    uploads = [f"/data/upload/1/{number}a1b2c3d-a.mp4" for number in (0, 1)]
    assert ids(*uploads) == uploads


def test_label_studio_gets_detections_as_predictions(tmp_path: Path) -> None:
    item = Segment(1.0, 2.0, 'sit "down"', 0.75)
    video = VideoAnnotation("P/v", "testing", 9.0, 10.0, (item,), file="/videos/P/v.avi")
    write_as(tmp_path / "t.json", "label-studio", Annotations.of_labels({"P/v": video}))
    (task,) = json.loads((tmp_path / "t.json").read_text())
    assert task["data"]["video"] == "/data/local-files/?d=P/v.avi"
    assert (task["data"]["fps"], task["data"]["subset"]) == (10.0, "testing")
    (prediction,) = task["predictions"]
    (result,) = prediction["result"]
    assert (prediction["score"], result["score"]) == (0.75, 0.75)
    assert result["value"]["ranges"] == [{"start": 11, "end": 20}]
    config = (tmp_path / "t.config.xml").read_text()
    assert f'name="{result["from_name"]}" toName="{result["to_name"]}"' in config
    assert "<Label value='sit \"down\"'/>" in config


def test_via(tmp_path: Path) -> None:
    content = {
        "project": {"pid": "__VIA_PROJECT_ID__", "data_format_version": "3.1.1"},
        "config": {},
        "attribute": {
            "1": {
                "aname": "TEMPORAL-SEGMENTS",
                "anchor_id": "FILE1_Z2_XY0",
                "type": 4,
                "options": {"0": "walk", "default": "Default"},
            },
            "2": {"aname": "Box", "anchor_id": "FILE1_Z1_XY1", "type": 1, "options": {}},
        },
        "file": {"1": {"fid": "1", "fname": "my film.mp4", "type": 4, "loc": 1, "src": ""}},
        "metadata": {
            "1_a": {"vid": "1", "flg": 0, "z": [2.5, 3.75], "xy": [], "av": {"1": "typed"}},
            "1_b": {"vid": "1", "flg": 0, "z": [1.0, 2.0], "xy": [], "av": {"1": "0"}},
            "1_c": {"vid": "1", "flg": 0, "z": [1.0], "xy": [2, 9, 9, 9, 9], "av": {"2": "x"}},
            "1_d": {"vid": "1", "flg": 0, "z": [1.0, 2.0], "xy": [], "av": {"1": ""}},
        },
        "view": {"1": {"fid_list": ["1"]}},
    }
    found = load_annotations(write(tmp_path / "via.json", content))
    assert segments(found, "my film") == [(1.0, 2.0, "walk"), (2.5, 3.75, "typed")]
    assert len(found.notes) == 2


def test_fiftyone(tmp_path: Path) -> None:
    labels = {
        "a": [
            {"label": "x", "timestamps": [1.0, 2.5], "confidence": 0.5},
            {"label": 1, "support": [11, 20]},
        ],
        "b": None,
    }
    write(tmp_path / "labels.json", {"classes": ["x", "y"], "labels": labels})
    with pytest.raises(AnnotationError, match="nothing says how many there are per second"):
        load_annotations(tmp_path)
    found = load_annotations(tmp_path, frame_rate=10)
    assert found.videos["a"].segments == (Segment(1.0, 2.5, "x", 0.5), Segment(1.0, 2.0, "y"))
    assert found.videos["b"].segments == ()
    sample = {
        "filepath": "data/a.mp4",
        "tags": ["train"],
        "metadata": {"_cls": "VideoMetadata", "frame_rate": 20, "duration": 3.0},
        "events": {
            "_cls": "TemporalDetections",
            "detections": [{"_cls": "TemporalDetection", "label": "x", "support": [21, 40]}],
        },
    }
    found = load_annotations(write(tmp_path / "samples.json", {"samples": [sample]}))
    assert segments(found, "a") == [(1.0, 2.0, "x")]
    assert (found.videos["a"].subset, found.videos["a"].duration) == ("training", 3.0)


SHORT_TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
10.5
<exists>
2
"IntervalTier"
"actions"
0
10.5
3
0
1.25
""
1.25
2.5
"sag QQjaQQ"
2.5
10.5
""
"TextTier"
"points"
0
10.5
1
3.5
"ü"
""".replace("QQ", '""')


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_textgrid(tmp_path: Path, encoding: str) -> None:
    file = write(tmp_path / "v.TextGrid", SHORT_TEXTGRID, encoding)
    found = load_annotations(file)
    assert segments(found, "v") == [(1.25, 2.5, 'sag "ja"'), (3.5, 3.5, "ü")]
    assert found.videos["v"].duration == 10.5
    tiers = load_annotations(file, "textgrid-tiers")
    assert segments(tiers, "v") == [(1.25, 2.5, "actions"), (3.5, 3.5, "points")]


LINES = {
    "v.vtt": (
        "WEBVTT - title\n\nNOTE walk --> sit\n\nSTYLE\n::cue {}\n\n7\n00:01.000 --> 00:02.500"
        " align:start\n<v Bob>one &amp; <i>two</i>\nthree\n\n01:00:00.000 --> 01:00:01.250\nb\n"
    ),
    "v.srt": (
        "1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>one & two</i>\r\nthree\r\n\r\n"
        "2\r\n01:00:00,000 --> 01:00:01,250  X1:0\r\nb\r\n"
    ),
    "v.txt": "1.000000\t2.500000\tone & two three\n\\\t100.0\t2000.0\n3600.0\t3601.25\tb\n",
    "v.ffmetadata": (
        ";FFMETADATA1\ntitle=a film\n; a comment\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=1000\n"
        "END=2500\ntitle=one & two\\\n three\n[CHAPTER]\nSTART=3600000000000\nEND=3601250000000\n"
        "title=b\n[STREAM]\ntitle=no\n"
    ),
    "v.llc": (
        "{\n  version: 1,\n  mediaFileName: 'v.mp4',\n  cutSegments: [\n    {\n      start: 1,\n"
        "      end: 2.5,\n      name: 'one & two three',\n    },\n"
        "    { start: 3600, end: 3601.25, name: 'b', tags: {} },\n  ],\n}\n"
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_lines_and_subtitles(tmp_path: Path, name: str) -> None:
    found = load_annotations(write(tmp_path / name, LINES[name]))
    assert segments(found, "v") == [(1.0, 2.5, "one & two three"), (3600.0, 3601.25, "b")]


def test_edit_decision_lists(tmp_path: Path) -> None:
    cuts = (
        "TITLE: reel\nFCM: DROP FRAME\n\n"
        "001  AX       V     C        00:01:00;02 00:10:00;00 00:00:00;00 00:08:59;28\n"
        "* FROM CLIP NAME: film.mov\n* COMMENT: walk\n"
        "002  AX       V     D    012 00:00:01;00 00:00:02;00 00:08:59;28 00:09:00;28\n"
        "* FROM CLIP NAME: film.mov\n"
    )
    rate = 30000 / 1001
    found = load_annotations(write(tmp_path / "a.edl", cuts), frame_rate=rate)
    # 00:01:00;02 follows 00:00:59;29, and ten minutes of drop-frame timecode are 17982 frames.
    assert segments(found, "film") == [(1800 / rate, 17982 / rate, "walk")]
    assert found.notes == ("1 annotation without a value left out",)
    markers = (
        "TITLE: t\r\nFCM: NON-DROP FRAME\r\n\r\n"
        "001  001      V     C        01:00:04:05 01:00:04:06 01:00:04:05 01:00:04:06  \r\n"
        "a note |C:ResolveColorBlue |M:sit down |D:20\r\n\r\n"
    )
    found = load_annotations(write(tmp_path / "b.edl", markers), rate_of=lambda video: 10.0)
    assert segments(found, "b") == [(4.5, 6.5, "sit down")]
    with pytest.raises(AnnotationError, match="--annotation-rate"):
        load_annotations(tmp_path / "b.edl")
    lacking = Annotations.of_labels({"v": VideoAnnotation("v")})
    with pytest.raises(AnnotationError, match="frame rate of 'v' is not known"):
        write_as(tmp_path / "c.edl", "edl", lacking)


def test_opentimelineio(tmp_path: Path) -> None:
    def span(start: float, length: float) -> dict[str, Any]:
        times = {"start_time": start, "duration": length}
        return {"OTIO_SCHEMA": "TimeRange.1"} | {
            key: {"OTIO_SCHEMA": "RationalTime.1", "rate": 24, "value": value}
            for key, value in times.items()
        }

    media = {
        "OTIO_SCHEMA": "ExternalReference.1",
        "target_url": "file:///x/my%20film.mov",
        "available_range": span(86400, 2400),
    }
    clip = {
        "OTIO_SCHEMA": "Clip.2",
        "name": "walk",
        "source_range": span(86424, 12),
        "markers": [],
        "media_references": {"DEFAULT_MEDIA": media},
        "active_media_reference_key": "DEFAULT_MEDIA",
    }
    gap = {"OTIO_SCHEMA": "Gap.1", "source_range": span(0, 8)}
    track = {"OTIO_SCHEMA": "Track.1", "kind": "Video", "name": "V1", "children": [gap, clip]}
    stack = {"OTIO_SCHEMA": "Stack.1", "children": [track]}
    root = {"OTIO_SCHEMA": "Timeline.1", "name": "t", "tracks": stack}
    found = load_annotations(write(tmp_path / "t.otio", root))
    assert segments(found, "my film") == [(1.0, 1.5, "walk")]
    clip["markers"] = [{"OTIO_SCHEMA": "Marker.2", "name": "sit", "marked_range": span(86448, 6)}]
    found = load_annotations(write(tmp_path / "t.otio", root))
    assert segments(found, "my film") == [(2.0, 2.25, "sit")]


@pytest.mark.parametrize(
    "text",
    [
        "video,start,end,label\nmy film.mp4,1.5,62.25,walk\n",
        "my film.mp4,1.5,62.25,walk\n",
        "Video;Start;End;Label\nmy film.MP4;1,5;1:02,25;walk\n",
        "my film\t0:00:01.5\t0:01:02.25\twalk\n",
    ],
)
def test_tables_of_four_columns(tmp_path: Path, text: str) -> None:
    found = load_annotations(write(tmp_path / "labels.csv", text))
    assert segments(found, "my film") == [(1.5, 62.25, "walk")]


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    "<ANNOTATION_DOCUMENT>&b;</ANNOTATION_DOCUMENT>"
)
FOREIGN = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    "<ANNOTATION_DOCUMENT>&a;</ANNOTATION_DOCUMENT>"
)


GOOD = EAF.format(encoding="UTF-8", value="x")
GRID = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\nx'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.eaf", BOMB, "declares a document type or entities"),
        ("v.eaf", FOREIGN, "declares a document type or entities"),
        ("v.eaf", "<ANNOTATION_DOCUMENT><TIER>", "is not valid XML"),
        ("v.eaf", '<?xml version="1.0" encoding="no-such"?><A/>', "is not valid XML"),
        ("v.eaf", "<html/>", "not of ELAN"),
        ("v.eaf", GOOD.replace('"1000"', '"1e999"'), "finite"),
        ("v.eaf", GOOD.replace('"1000"', '"9000"'), "before its"),
        ("v.eaf", GOOD.replace('REF2="ts4"', 'REF2="t"'), "slot"),
        ("v.srt", "1\n00:00:01 -> 00:00:02\nx\n00:00:03,000 --> x\ny\n\n\n1\n00 --> 2\n", "START"),
        ("v.srt", "1\n00:00:09,000 --> 00:00:02,000\nx\n", "before its start"),
        ("v.vtt", "\ud800".encode("utf-16", "surrogatepass").decode("latin-1"), "UTF-8"),
        ("v.llc", "{cutSegments: [{start: NaN, end: 1, name: 'x'}]}", "finite"),
        ("v.llc", "{cutSegments: [" + "[" * 5000, "not a project of LosslessCut"),
        ("v.llc", "{version: 1}", '"cutSegments" is not a list'),
        ("v.TextGrid", GRID, "usable TextGrid"),
        ("v.otio", '{"OTIO_SCHEMA": "Clip.1", "source_range": 3}', "is not an object"),
        ("v.ffmetadata", ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=0/1\nSTART=1\nEND=2\n", "time base"),
        ("v.ffmetadata", ";FFMETADATA1\n[CHAPTER]\nSTART=one\nEND=2\n", "finite"),
        ("v.boris", {"behaviors_conf": {}, "observations": {"o": 3}}, "not an object"),
        ("v.boris", project(events=[["x", "", "walk"]]), "not a finite number"),
        ("v.json", [{"data": {}, "annotations": []}], 'no video in "data"'),
        ("v.json", [{"video": "v", "x": [region(9, 2, "x")["value"]]}], "before its start"),
        ("v.csv", "video,start,end,label\nv,1:99:99,2,x\n", "more than 59 seconds"),
        ("v.csv", "v,nan,2,x\n", "of no format"),
    ],
)
def test_damaged_files_are_refused_in_one_line(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    encoding = "latin-1" if name == "v.vtt" else "utf-8"
    file = write(tmp_path / name, content, encoding)
    with pytest.raises(VidkdError, match=message) as caught:
        load_annotations(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_nothing_is_overwritten_or_written_elsewhere(tmp_path: Path) -> None:
    found = Annotations.of_labels({"v": VideoAnnotation("v"), "w": VideoAnnotation("w")})
    with pytest.raises(UsageError, match="holds one video a file, and there are 2"):
        write_as(tmp_path / "x.eaf", "elan", found)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/w.eaf").write_text("by hand")
    with pytest.raises(UsageError, match="exists already"):
        write_as(tmp_path / "out", "elan", found)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["w.eaf"]
    write_as(tmp_path / "out", "elan", found, overwrite=True)
    for name in ("../v", "/v", "a/../../v"):
        outside = Annotations.of_labels({name: VideoAnnotation(name)})
        with pytest.raises(AnnotationError, match="cannot be that of a file"):
            write_as(tmp_path / "out", "elan", outside)


def test_every_format_that_is_written_is_read() -> None:
    assert set(WRITERS) <= set(READERS)
    assert all(writer.holds <= set(KINDS) for writer in WRITERS.values())
    assert all(set(writer.ending[1:]) <= set(string.ascii_lowercase) for writer in WRITERS.values())
