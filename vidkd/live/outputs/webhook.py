"""Events as HTTP requests: one POST of JSON for each."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import random
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from vidkd import __version__
from vidkd.errors import UsageError, VidkdError
from vidkd.live.events import Event
from vidkd.live.outputs.beside import Beside, Counts

SECRET = "VIDKD_WEBHOOK_SECRET"
"""Environment variable; with it, requests are signed with HMAC-SHA256."""
TOKEN = "VIDKD_WEBHOOK_TOKEN"
"""Environment variable; with it, requests carry it as ``Authorization: Bearer``."""
_PLAIN = "%/:@!$&'()*+,;=~-._?[]"
_TIMEOUT = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_ATTEMPTS = 5
"""For an event that the receiver answers with an error of its own (HTTP 5xx)."""
_LATER = {408, 425, 429, 502, 503, 504}
"""The receiver, or what stands before it, is not there at present."""


class Webhook(Beside):
    """POSTs each event as JSON, in order, until the receiver takes it.

    A receiver that cannot be reached is tried again after 1, 2, 4 and up to 60 seconds, as long as
    there is room for the events that come meanwhile. One it refuses (HTTP 4xx) is given up at
    once, one that makes it fail (HTTP 500) after five attempts. A request whose answer is lost is
    sent again: the header ``Idempotency-Key`` is then the same.

    Args:
        url: ``http://`` or ``https://``; the environment variables ``VIDKD_WEBHOOK_SECRET`` and
            ``VIDKD_WEBHOOK_TOKEN`` sign it or authorise it.

    Raises:
        UsageError: it is no such address, or holds a password.
    """

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        try:
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            port = None
        if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
            raise UsageError(
                "--webhook is not an address of HTTP",
                remedy="give http://HOST[:PORT]/PATH or https://...",
            )
        if parts.username is not None:
            raise UsageError(
                "the address of --webhook holds a name or a password, which others may read",
                remedy=f"put a token into the environment variable {TOKEN}",
            )
        self._url = urllib.parse.quote(parts._replace(fragment="").geturl(), safe=_PLAIN)
        # A path or a query may be secret, so that only this much is ever shown.
        self._shown = f"{parts.scheme}://{parts.hostname}{port}"
        self._secret, self._token = os.environ.get(SECRET), os.environ.get(TOKEN, "").strip()
        if not (self._token.isascii() and self._token.isprintable()):
            raise UsageError(f"{TOKEN} holds characters that no header can carry")
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._run = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        super().__init__(Counts("webhook"), self._send)

    def _send(self, event: Event) -> None:
        content = event.to_json()
        body = json.dumps(content, ensure_ascii=False).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"vidkd/{__version__}",
            "Idempotency-Key": hashlib.sha256(self._run.encode() + body).hexdigest()[:32],
        }
        if self._secret:
            digest = hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Vidkd-Signature"] = f"sha256={digest}"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        pause, answers = _FIRST_PAUSE, 0
        while True:
            status, wait = 0, 0.0
            try:
                status, wait = self._post(body, headers)
                problem = f"{self._shown} answered {status}"
            except (OSError, http.client.HTTPException) as error:
                error = getattr(error, "reason", error)
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                problem = f"{self._shown} cannot be reached ({reason})"
            if 200 <= status < 300:
                self.counts.success()
                return
            answers += bool(status) and status not in _LATER
            if (300 <= status < 500 and status not in _LATER) or answers == _ATTEMPTS:
                raise VidkdError(problem, remedy="check the address and the secret")
            self.counts.trouble(f"{problem}; it is tried again")
            if not self.pause(max(pause * random.uniform(0.8, 1.2), wait)):
                self.counts.dropped += 1
                return
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, float]:
        """Return the status, and for how many seconds the receiver wants to be left alone."""
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as response:
                return response.status, 0.0
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, _seconds(answer.headers.get("Retry-After"))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A secret is for the address that was given, and a redirected POST would become a GET."""

    def redirect_request(self, *args: Any) -> None:
        return None


def _seconds(value: str | None) -> float:
    if value is None:
        return 0.0
    try:
        wait = float(value)
    except ValueError:
        try:
            wait = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(wait, 0.0), _LONGEST_PAUSE)
