"""Events on an MQTT broker."""

from __future__ import annotations

import json
import os
import threading
import urllib.parse
from typing import Any

from vidkd.console import log
from vidkd.errors import UsageError, VidkdError
from vidkd.live.events import Event
from vidkd.live.outputs.beside import Beside, Counts

PASSWORD = "VIDKD_MQTT_PASSWORD"
"""Environment variable with the password of the broker."""
_PORTS = {"mqtt": 1883, "mqtts": 8883}


class Mqtt(Beside):
    """Publishes each event as JSON with quality of service 1, and ``online`` beside them.

    ``TOPIC/status`` holds ``online``, and ``offline`` once the watch has ended or died, retained.
    The connection is made again whenever it breaks; what comes meanwhile waits.

    Args:
        url: ``mqtt://[USER@]HOST[:PORT]/TOPIC``, or ``mqtts://`` for TLS.

    Raises:
        UsageError: it is no such address, or holds a password.
        VidkdError: paho-mqtt is missing.
    """

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        topic = urllib.parse.unquote(parts.path.strip("/"))
        try:
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            port = 0
        if not port or not parts.hostname or not topic or set(topic) & set("+#\0"):
            raise UsageError(
                "--mqtt is not an address of a topic on a broker",
                remedy="give mqtt://[USER@]HOST[:PORT]/TOPIC or mqtts://..., without + and #",
            )
        if parts.password is not None:
            raise UsageError(
                "the address of --mqtt holds a password, which others may read",
                remedy=f"put it into the environment variable {PASSWORD}",
            )
        try:
            from paho.mqtt import client as paho
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise VidkdError(
                "paho-mqtt, which speaks to MQTT brokers, is not installed",
                remedy="install it: pip install 'vidkd[mqtt]'",
            ) from error
        self._topic, self._place = topic, f"{parts.hostname}:{port}"
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2)
        if parts.username is not None:
            client.username_pw_set(urllib.parse.unquote(parts.username), os.environ.get(PASSWORD))
        if parts.scheme == "mqtts":
            client.tls_set()
        client.will_set(f"{topic}/status", "offline", qos=1, retain=True)
        client.reconnect_delay_set(1, 60)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_connect_fail = self._unreachable
        client.on_publish = self._acknowledged
        self._refused = False
        self._taken: set[int] = set()
        self._answered = threading.Event()
        super().__init__(Counts("mqtt"), self._publish, end=self._leave)
        client.connect_async(parts.hostname, port, keepalive=30)
        client.loop_start()

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        self._refused = reason.is_failure
        if self._refused:
            self.counts.trouble(f"{self._place} refuses the connection ({reason})")
            return
        log(f"mqtt: connected to {self._place}, topic {self._topic}")
        client.publish(f"{self._topic}/status", "online", qos=1, retain=True)

    def _disconnected(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        if reason.is_failure and not self._refused:
            self.counts.trouble(f"the connection to {self._place} broke ({reason})")

    def _unreachable(self, client: Any, data: Any) -> None:
        self.counts.trouble(f"{self._place} cannot be reached")

    def _publish(self, event: Event) -> None:
        message = self._client.publish(
            self._topic, json.dumps(event.to_json(), ensure_ascii=False), qos=1
        )
        # paho keeps it, and sends it again after it has connected again.
        while message.mid not in self._taken:
            if not self.may_wait():
                self.counts.dropped += 1
                return
            self._answered.wait(0.5)
            self._answered.clear()
        self._taken.clear()
        self.counts.success()

    def _acknowledged(self, client: Any, data: Any, number: int, reason: Any, more: Any) -> None:
        self._taken.add(number)
        self._answered.set()

    def _leave(self) -> None:
        if self._client.is_connected():
            gone = self._client.publish(f"{self._topic}/status", "offline", qos=1, retain=True)
            gone.wait_for_publish(2.0)
        self._client.disconnect()
        self._client.loop_stop()
