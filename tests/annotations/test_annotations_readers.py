"""Every reader on small files, on files made to break it, and on the data sets' own files."""

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.annotations import READERS, Segment, check, load_annotations, readers
from vidkd.errors import AnnotationError, UsageError
from vidkd.extensions import Table

DATA = os.environ.get("VIDKD_TEST_DATA")
real = pytest.mark.skipif(not DATA, reason="VIDKD_TEST_DATA is not set")


def write(folder: Path, content: object, name: str = "truth.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def database(*segments: tuple[float, float, str], **entry: object) -> dict:
    items = [{"segment": [start, end], "label": label} for start, end, label in segments]
    return {"database": {"v1": {"subset": "testing", "annotations": items, **entry}}}


def test_activitynet_keeps_everything(tmp_path: Path) -> None:
    content = database((1, 2.5, "b"), (2, 9, "a"), duration=8, fps=12.5, subject="S1", view="F")
    content["classes"] = ["b", "a", "unused"]
    found = load_annotations(write(tmp_path, content))
    assert found.classes == ("b", "a", "unused")
    video = found.videos["v1"]
    assert video.segments == (Segment(1.0, 2.5, "b"), Segment(2.0, 9.0, "a"))
    assert (video.duration, video.frame_rate, video.subset) == (8.0, 12.5, "testing")
    assert video.attributes == {"subject": "S1", "view": "F"}
    assert check(found) == [
        "'a' [2, 9] of video 'v1' ends past the end at 8 s",
        "class 'unused' has no segment",
    ]


def test_activitynet_without_classes_sorts_the_labels(tmp_path: Path) -> None:
    found = load_annotations(write(tmp_path, database((0, 1, "z"), (0, 1, "a"))))
    assert found.classes == ("a", "z")
    assert found.videos["v1"].duration is None


def test_numbered_formats_count_as_their_data_sets_do(tmp_path: Path) -> None:
    content = {"P02T01C06": {"subset": "training", "duration": 1000, "actions": [[5, 50, 100]]}}
    path = write(tmp_path, content)
    charades = load_annotations(path, "charades").videos["P02T01C06"]
    assert charades.segments == (Segment(50.0, 100.0, "c005"),)
    assert charades.frame_rate is None
    thumos = load_annotations(path, "multithumos")
    assert thumos.classes[4] == "5" == thumos.videos["P02T01C06"].segments[0].label
    tsu = load_annotations(path, "tsu").videos["P02T01C06"]
    assert tsu.segments == (Segment(2.0, 4.0, "5"),)
    assert (tsu.duration, tsu.frame_rate) == (40.0, 25.0)
    assert tsu.attributes == {"subject": "02", "take": "01", "view": "06"}
    slow = load_annotations(path, "tsu", frame_rate=10).videos["P02T01C06"]
    assert slow.segments == (Segment(5.0, 10.0, "5"),)
    # Subject 2 does not train in cross-subject, camera 6 does in cross-view.
    assert load_annotations(path, "tsu-cross-subject").subsets == ("testing",)
    assert load_annotations(path, "tsu-cross-view").subsets == ("training",)


@pytest.mark.parametrize(("label", "format"), [(157, "charades"), (0, "multithumos"), (51, "tsu")])
def test_numbered_formats_refuse_other_labels(tmp_path: Path, label: int, format: str) -> None:
    path = write(tmp_path, {"v": {"subset": "t", "duration": 9, "actions": [[label, 0, 1]]}})
    with pytest.raises(AnnotationError, match=rf"'v'.*class {label} is not one of"):
        load_annotations(path, format)


def test_ambiguous_json_asks_for_its_format(tmp_path: Path) -> None:
    path = write(tmp_path, {"v": {"subset": "t", "duration": 9, "actions": []}})
    with pytest.raises(AnnotationError, match="name the format: one of charades, multithumos, tsu"):
        load_annotations(path)


def test_charades_csv(tmp_path: Path) -> None:
    text = (
        "id,subject,scene,script,objects,actions,length\r\n"
        'A1,S1,Kitchen,"One, two",x;y,c001 0.5 3.25;c156 9.0 7.0,8.0\r\n'
        "A2,S1,Kitchen,,,,12.5\r\n"
    )
    found = load_annotations(write(tmp_path, text, "Charades_v1_train.csv"))
    assert len(found.classes) == 157
    assert found.videos["A1"].segments == (Segment(0.5, 3.25, "c001"),)
    assert found.videos["A1"].attributes["script"] == "One, two"
    assert found.videos["A2"].segments == ()
    assert found.subsets == ("training",)
    assert found.notes == ("video 'A1': 'c156' [9, 7] ends before it starts; left out",)
    assert "video 'A2' has no segment" in check(found)


def test_plain_csv(tmp_path: Path) -> None:
    text = (
        "label,video,start,end,subset,duration,fps\n"
        "a,v1,0,1,testing,4,10\n"
        "b,v1,1,2,,,\n"
        ",v2,,,testing,3,\n"
    )
    found = load_annotations(write(tmp_path, text, "a.csv"))
    assert found.classes == ("a", "b")
    assert found.videos["v1"].segments == (Segment(0, 1, "a"), Segment(1, 2, "b"))
    assert (found.videos["v1"].duration, found.videos["v1"].frame_rate) == (4, 10)
    assert found.videos["v2"].segments == ()
    with pytest.raises(AnnotationError, match=r"'v1': duration is 4 in one line and 5"):
        load_annotations(write(tmp_path, text + "a,v1,0,1,testing,5,\n", "b.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (database((3, 2, "a")), r"'v1': a segment of 'a' ends at 2, before its start at 3; swap"),
        (database((0, float("nan"), "a")), r"'v1': a segment's end is not a finite number: nan"),
        (database((0, 10**400, "a")), r"'v1': a segment's end is not a finite number"),
        ({**database((0, 1, "x")), "classes": ["a"]}, r"'v1': the class 'x' is unknown; correct"),
        ({**database((0, 1, "a")), "classes": ["a", "a"]}, r"class 'a' is given twice; keep one"),
        (database((0, 1, "a"), duration=-4), r"'v1': the duration is -4; correct it"),
        (database((0, 1, "a"), duration="long"), r"'v1': the duration is not a finite number"),
        ({"database": {"v1": []}}, r"'v1': the entry is not an object"),
        ({"database": {"v1": {"annotations": [{"label": "a", "segment": [1]}]}}}, r"not \[start"),
        (
            {"database": {"v1": {"annotations": [{"label": 3, "segment": [1, 2]}]}}},
            r"not a name: 3",
        ),
        ({"database": []}, r"\"database\" is not an object"),
        ('{"database": {"v1": {}, "v1": {}}}', r"the key 'v1' is given twice; keep one"),
        ('{"database": {', r"is not valid JSON \(line 1, column 15"),
        ("[" * 200_000, r"nested too deep"),
        ('{"database": ' + "9" * 5000 + "}", r"thousands of digits"),
        ("", r"is of no format.*; name the format"),
        ("\0\1\2", r"is of no format"),
        ("[]", r"is of no format"),
    ],
)
def test_errors_name_file_video_and_remedy(tmp_path: Path, content: object, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(AnnotationError, match=message) as caught:
        load_annotations(path)
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="No such file"):
        load_annotations(tmp_path / "none.json")
    with pytest.raises(AnnotationError, match="cannot be read"):
        load_annotations(tmp_path, "activitynet")
    with pytest.raises(AnnotationError, match="is a folder of no format"):
        load_annotations(tmp_path)
    binary = tmp_path / "video.json"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(AnnotationError, match="is not a text file"):
        load_annotations(binary)
    with pytest.raises(UsageError, match="no annotation format 'coco'"):
        load_annotations(binary, "coco")
    with pytest.raises(UsageError, match="counts in seconds"):
        load_annotations(binary, "charades", frame_rate=25)


def test_unknown_subset_names_the_known(tmp_path: Path) -> None:
    found = load_annotations(write(tmp_path, database((0, 1, "a"))))
    with pytest.raises(AnnotationError, match=r"'validation'; name one of their subsets \(testing"):
        found.subset("validation")


def test_a_reader_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lines.py").write_text(
        "from vidkd.annotations import Annotations, Reader, Segment, VideoAnnotation\n"
        "def read(source, rate):\n"
        "    videos = {}\n"
        "    for line in source.text.splitlines()[1:]:\n"
        "        name, frame, label = line.split()\n"
        "        item = Segment(int(frame) / rate, (int(frame) + 1) / rate, label)\n"
        "        videos[name] = VideoAnnotation(name, segments=(item,))\n"
        "    return Annotations.of_labels(videos)\n"
        "READER = Reader('lines', read, lambda s: s.path.suffix == '.lines', frame_rate=10)\n"
    )
    (tmp_path / "lines-1.dist-info").mkdir()
    (tmp_path / "lines-1.dist-info/METADATA").write_text("Name: lines\nVersion: 1\n")
    (tmp_path / "lines-1.dist-info/entry_points.txt").write_text(
        "[vidkd.datasets]\nlines = lines:READER\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(readers, "READERS", Table("vidkd.datasets", "format", {**READERS}))
    path = write(tmp_path, "lines\nv1 20 wave\n", "truth.lines")
    expected = (Segment(2.0, 2.1, "wave"),)
    for format in ("auto", "lines"):
        assert load_annotations(path, format).videos["v1"].segments == expected
    halved = load_annotations(path, frame_rate=20).videos["v1"].segments
    assert halved == (Segment(1.0, 1.05, "wave"),)
    with pytest.raises(UsageError, match=r"give one of activitynet, .*, lines"):
        load_annotations(path, "coco")


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["database", "annotations", "segment", "label", "actions", "duration", "v", "fps"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(content=json_values | st.text(max_size=60), format=st.sampled_from(("auto", *READERS)))
def test_garbage_gives_annotations_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, content: object, format: str
) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with contextlib.suppress(AnnotationError):
        check(load_annotations(path, format))


@real
def test_real_charades() -> None:
    found = load_annotations(Path(DATA or "") / "annotations/charades.json", "charades")
    assert (len(found.videos), len(found.classes)) == (9848, 157)
    assert sum(not video.segments for video in found.videos.values()) == 223
    assert len(found.notes) == 7
    assert len(found.subset("testing").videos) == 1863
    problems = check(found)
    content = json.loads((Path(DATA or "") / "annotations/charades.json").read_text())
    late = sum(
        start <= end and end > video["duration"] + 1e-6
        for video in content.values()
        for _, start, end in video["actions"]
    )
    assert sum("past the end" in problem for problem in problems) == late > 19_000
    table = load_annotations(Path(DATA or "") / "annotations/Charades_v1_test_first200.csv")
    for name, video in table.videos.items():
        other = found.videos[name]
        assert set(video.segments) == set(other.segments)
        assert (video.duration, video.subset) == (other.duration, other.subset)


@real
def test_real_multithumos_and_tsu() -> None:
    folder = Path(DATA or "") / "annotations"
    thumos = load_annotations(folder / "multithumos.json", "multithumos")
    assert (len(thumos.subset("training").videos), len(thumos.subset("testing").videos)) == (
        200,
        213,
    )
    used = {item.label for video in thumos.videos.values() for item in video.segments}
    assert used == set(thumos.classes)
    given_split = load_annotations(folder / "tsu_cs.json", "tsu")
    subject = load_annotations(folder / "tsu_cs.json", "tsu-cross-subject")
    assert subject.videos == given_split.videos
    view = load_annotations(folder / "tsu_cs.json", "tsu-cross-view").subset("testing")
    tested = {item.label for video in view.videos.values() for item in video.segments}
    assert len(set(view.classes) - tested) == 18


@real
def test_real_untrimmed() -> None:
    found = load_annotations(Path(DATA or "") / "untrimmed/annotations.json")
    assert (len(found.videos), len(found.classes)) == (48, 9)
    assert check(found) == []
    assert {video.attributes["view"] for video in found.videos.values()} == {"FCE", "LFT", "RGT"}
