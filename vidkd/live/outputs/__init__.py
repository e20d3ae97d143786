"""Where live events and pictures go, each beside the engine and none of them in its way."""

from __future__ import annotations

from vidkd.live.events import Output
from vidkd.live.outputs.beside import Beside
from vidkd.live.statistics import Statistics
from vidkd.recipe import OutputSettings


def open_outputs(settings: OutputSettings, statistics: Statistics) -> list[Output]:
    """Return the outputs that were asked for, at work.

    Args:
        settings: which.
        statistics: of the engine, for the metrics.

    Raises:
        UsageError: an address makes no sense.
        VidkdError: an output cannot begin.
    """
    found: list[Output] = []
    try:
        # The libraries of each take a while to import.
        if settings.webhook is not None:
            from vidkd.live.outputs.webhook import Webhook

            found.append(Webhook(settings.webhook))
        if settings.mqtt is not None:
            from vidkd.live.outputs.mqtt import Mqtt

            found.append(Mqtt(settings.mqtt))
        if settings.clips is not None:
            from vidkd.live.outputs.clips import Clips

            limit = round(settings.clips_limit * 1e9)
            found.append(Clips(settings.clips, settings.clips_margin, limit))
        if settings.http is not None:
            from vidkd.live.outputs.page import Page

            counts = [output.counts for output in found if isinstance(output, Beside)]
            found.append(Page(settings.http, statistics, counts))
        if settings.window:
            from vidkd.live.outputs.window import Window

            found.append(Window(list(statistics.sources)))
    except BaseException:
        for output in found:
            output.close()
        raise
    return found
