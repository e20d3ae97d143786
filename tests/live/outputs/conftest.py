"""No secret of the person who tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIDKD_WEBHOOK_SECRET", "VIDKD_WEBHOOK_TOKEN", "VIDKD_MQTT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
