"""The window on a screen without a monitor."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from made import event, picture, until
from PIL import ImageGrab

from vidkd.errors import VidkdError
from vidkd.live.outputs.window import Window


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no Xvfb")
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1200x800x24"]
    with subprocess.Popen(
        command, pass_fds=[writing], stderr=subprocess.DEVNULL, text=True
    ) as server:
        os.close(writing)
        with os.fdopen(reading) as told:
            monkeypatch.setenv("DISPLAY", f":{told.readline().strip()}")
        yield server
        server.kill()


def test_the_window_shows_pictures_and_its_end_ends_nothing_else(
    screen: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("_tkinter", reason="this Python has no Tk")
    window = Window(["door"])
    window.event(event(1, "begin", 0.5))
    window.event(event(1, "certain", 0.5))

    def colours() -> set[tuple[int, int, int]]:
        frame = replace(picture(1.0, 200, (240, 320)), wall=datetime.now(UTC))
        window.frame("door", frame)
        found = ImageGrab.grab(xdisplay=os.environ["DISPLAY"]).getcolors(1 << 20)
        return {colour for count, colour in found if count > 100}

    until(lambda: (200, 200, 200) in colours(), 60)
    # The bar of "walk", whose colour is that of the first class.
    assert (0x3B, 0x82, 0xF6) in colours()
    assert window._process.is_alive()
    screen.kill()
    window._process.join(20)
    assert not window._process.is_alive()
    until(lambda: window.frame("door", picture(2.0)) or not window._thread.is_alive())
    assert "detection goes on" in capsys.readouterr().err
    window.frame("door", picture(3.0))
    window.event(event(1, "end", 0.5, 3.0))
    window.close()


def test_without_a_screen_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(VidkdError, match=r"no screen.*--http"):
        Window(["door"])
