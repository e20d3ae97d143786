"""ELAN (.eaf): one video a file, annotations on tiers, times in whole milliseconds.

The layout is that of the EAF schema 2.7 to 3.0.
"""

from __future__ import annotations

import datetime
import mimetypes
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from vidkd.annotations.media import Mark, OneVideo, counted, is_kind, lanes, read_each
from vidkd.annotations.model import Annotations
from vidkd.annotations.parse import Context, Reader, Source
from vidkd.files import atomic_path

_ENDINGS = (".eaf",)
_SCHEMA = "http://www.w3.org/2001/XMLSchema-instance"


def _parse(source: Source) -> list[OneVideo]:
    here, root = Context(source.path), source.xml
    if root.tag != "ANNOTATION_DOCUMENT":
        raise here.error(f"is XML, but not of ELAN (<{root.tag[:40]}>)", "name the right --format")
    header = root.find("HEADER")
    unit = "milliseconds" if header is None else header.get("TIME_UNITS", "milliseconds")
    if unit != "milliseconds":
        raise here.error(f"counts in {unit[:40]}", "save it with a current version of ELAN")
    file, origin, notes = _media(header, here)
    times = _times(root, here)
    marks, dependent = [], {}
    for tier in root.iter("TIER"):
        name = tier.get("TIER_ID", "")
        for item in tier.iter("ALIGNABLE_ANNOTATION"):
            slots = (item.get("TIME_SLOT_REF1", ""), item.get("TIME_SLOT_REF2", ""))
            if any(slot not in times for slot in slots):
                raise here.at(f"tier {name!r}").error(
                    f"an annotation has no time slot {' and '.join(slots)}", "correct the file"
                )
            start, end = (times[slot] + origin for slot in slots)
            marks.append(Mark(name, _value(item), start / 1000, end / 1000))
        if count := sum(1 for _ in tier.iter("REF_ANNOTATION")):
            dependent[name] = count
    if dependent:
        notes.append(
            f"{here.path.name}: {counted(sum(dependent.values()), 'annotation')} of dependent tiers"
            f" ({', '.join(dependent)}) left out: they have no times of their own"
        )
    return [OneVideo(marks, file, classes=_vocabulary(root, marks), notes=notes)]


def _value(item: Element) -> str:
    return (item.findtext("ANNOTATION_VALUE") or "").strip()


def _media(header: Element | None, here: Context) -> tuple[str | None, float, list[str]]:
    """Return the video, the millisecond of it at which the annotations' time begins, and notes."""
    found = [] if header is None else header.findall("MEDIA_DESCRIPTOR")
    videos = [item for item in found if item.get("MIME_TYPE", "").startswith("video")]
    chosen = (videos or found)[:1]
    if not chosen:
        return None, 0.0, []
    notes = []
    if len(videos) > 1:
        others = ", ".join(_name(item) for item in videos[1:])
        notes.append(
            f"{here.path.name}: belongs to several videos; the first is taken, not {others}"
        )
    origin = here.number(chosen[0].get("TIME_ORIGIN", "0"), "TIME_ORIGIN")
    return _name(chosen[0]) or None, origin, notes


def _name(item: Element) -> str:
    return item.get("MEDIA_URL") or item.get("RELATIVE_MEDIA_URL") or ""


def _times(root: Element, here: Context) -> dict[str, float]:
    """Return the millisecond of every slot.

    Slots without a time stand between annotations that divide a longer one; they lie evenly between
    the nearest slots of their tier that have one, as ELAN shows them.
    """
    times: dict[str, float] = {}
    unaligned: set[str] = set()
    for item in root.iter("TIME_SLOT"):
        name, value = item.get("TIME_SLOT_ID", ""), item.get("TIME_VALUE")
        if value is None:
            unaligned.add(name)
        else:
            times[name] = here.number(value, f"the time of {name}")
    for tier in root.iter("TIER"):
        waiting: dict[str, None] = {}
        last = 0.0
        for item in tier.iter("ALIGNABLE_ANNOTATION"):
            for name in (item.get("TIME_SLOT_REF1", ""), item.get("TIME_SLOT_REF2", "")):
                if name in unaligned and name not in times:
                    waiting[name] = None
                    continue
                now = times.get(name, last)
                for number, other in enumerate(waiting, start=1):
                    times[other] = last + (now - last) * number / (len(waiting) + 1)
                last, waiting = now, {}
        times.update(dict.fromkeys(waiting, last))
    return times


def _vocabulary(root: Element, marks: list[Mark]) -> list[str]:
    """Return the entries of the first controlled vocabulary that has every value."""
    values = {mark.value for mark in marks if mark.value}
    for vocabulary in root.iter("CONTROLLED_VOCABULARY"):
        entries = [
            (item.text or "").strip()
            for tag in ("CVE_VALUE", "CV_ENTRY")
            for item in vocabulary.iter(tag)
        ]
        entries = [entry for entry in entries if entry]
        if entries and values <= set(entries):
            return entries
    return []


def write(path: Path, annotations: Annotations) -> None:
    """Write one video: a tier for each class, whose name is also the value of its annotations.

    Where segments of one class overlap, the later ones stand on a further tier. A controlled
    vocabulary lists the classes, so that ELAN offers them in a menu.
    """
    (video,) = annotations.videos.values()
    root = Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "vidkd",
            "DATE": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": _SCHEMA,
            "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
        },
    )
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if video.file is not None:
        file = Path(video.file)
        media = {
            "MEDIA_URL": file.absolute().as_uri() if "://" not in video.file else video.file,
            "MIME_TYPE": mimetypes.guess_type(file.name)[0] or "video/mp4",
        }
        SubElement(header, "MEDIA_DESCRIPTOR", media)
    order = SubElement(root, "TIME_ORDER")
    slots = 0

    def slot(millisecond: int) -> str:
        nonlocal slots
        slots += 1
        SubElement(order, "TIME_SLOT", TIME_SLOT_ID=f"ts{slots}", TIME_VALUE=str(millisecond))
        return f"ts{slots}"

    number = 0
    for name in annotations.classes:
        whole = [
            replace(item, start=start, end=max(start + 1, round(item.end * 1000)))
            for item in video.segments
            if item.label == name
            for start in [round(item.start * 1000)]
        ]
        for lane_number, lane in enumerate(lanes(whole) or [[]], start=1):
            tier = SubElement(
                root,
                "TIER",
                LINGUISTIC_TYPE_REF="action",
                TIER_ID=name if lane_number == 1 else f"{name} ({lane_number})",
            )
            for item in lane:
                number += 1
                annotation = SubElement(SubElement(tier, "ANNOTATION"), "ALIGNABLE_ANNOTATION")
                annotation.set("ANNOTATION_ID", f"a{number}")
                annotation.set("TIME_SLOT_REF1", slot(int(item.start)))
                annotation.set("TIME_SLOT_REF2", slot(int(item.end)))
                SubElement(annotation, "ANNOTATION_VALUE").text = name
    SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId").text = str(number)
    SubElement(
        root,
        "LINGUISTIC_TYPE",
        LINGUISTIC_TYPE_ID="action",
        TIME_ALIGNABLE="true",
        GRAPHIC_REFERENCES="false",
        CONTROLLED_VOCABULARY_REF="classes",
    )
    SubElement(root, "LANGUAGE", LANG_ID="und", LANG_LABEL="undetermined (und)")
    vocabulary = SubElement(root, "CONTROLLED_VOCABULARY", CV_ID="classes")
    SubElement(vocabulary, "DESCRIPTION", LANG_REF="und")
    for count, name in enumerate(annotations.classes):
        entry = SubElement(vocabulary, "CV_ENTRY_ML", CVE_ID=f"cveid{count}")
        SubElement(entry, "CVE_VALUE", LANG_REF="und", DESCRIPTION="").text = name
    indent(root, "    ")
    with atomic_path(path) as temporary:
        ElementTree(root).write(temporary, encoding="UTF-8", xml_declaration=True)


def _reader(labels: str, help: str) -> Reader:
    return Reader(
        help,
        lambda source, _: read_each(source, _ENDINGS, _parse, labels),
        lambda source: labels == "auto" and is_kind(source, _ENDINGS),
    )


ELAN = _reader("auto", "ELAN .eaf, or a folder of them: values are classes, or tiers if empty")
ELAN_TIERS = _reader("tiers", "ELAN, whose tiers are the classes, whatever the values")
ELAN_VALUES = _reader("values", "ELAN, whose values are the classes, whatever the tiers")
