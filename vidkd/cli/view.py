"""``vidkd view``: look at results beside their video, and correct them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vidkd.cli.export import Format
from vidkd.cli.options import argument, flag, option
from vidkd.errors import UsageError
from vidkd.files import refuse_address


def view(
    results: Annotated[
        list[Path] | None,
        argument(
            "Segments (FILE.json) or dense scores (FILE.h5) of models, shown side by side. For "
            "NAME.json, the scores in NAME.h5 beside it are taken too.",
            "[RESULT]...",
        ),
    ] = None,
    videos: Annotated[Path | None, option("Folder of the videos.", "DIR")] = None,
    annotations: Annotated[
        Path | None, option("Annotations to show and to correct.", "FILE")
    ] = None,
    format: Format = "auto",
    save: Annotated[
        Path | None,
        option(
            "Where corrected annotations go, at every change; if it exists, the work goes on. "
            "Default: NAME.corrected.json beside the first result.",
            "FILE.json",
        ),
    ] = None,
    port: Annotated[
        int, option("Port of the page; 0 takes any that is free.", "NUMBER", min=0, max=65535)
    ] = 8765,
    browser: Annotated[bool, flag("--browser/--no-browser", "Open the page in a browser.")] = True,
) -> None:
    """Show results beside their video in a browser, and correct them.

    The page is served to this machine alone, until Ctrl-C. Files that were given are never changed.
    """
    from vidkd.annotations import Annotations, load_annotations
    from vidkd.video import VideoFolder
    from vidkd.view import Project, load_models, serve
    from vidkd.view.labels import Labels

    if not results and annotations is None and videos is None:
        raise UsageError(
            "there is nothing to show", remedy="give results, --annotations or --videos"
        )
    if videos is not None:
        refuse_address(videos)  # a browser needs parts and copies of them
    if videos is not None and not videos.is_dir():
        raise UsageError("is not a folder", path=videos, remedy="give the folder of the videos")
    models = load_models(results or [])
    given = Annotations((), {})
    if annotations is not None:
        rate = VideoFolder(videos).rate if videos is not None else None
        given = load_annotations(annotations, format, rate_of=rate)
    first = (results or [annotations or videos or Path()])[0]
    target = save or first.absolute().with_name(f"{first.stem or 'labels'}.corrected.json")
    inputs = [*(results or ()), *([annotations] if annotations else ())]
    serve(Project(models, Labels(given, target, inputs), videos), port, browser=browser)
