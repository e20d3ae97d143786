"""Events on a broker of another make, which comes late, goes, and comes back."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from typing import Any

import pytest
from made import event, until

from vidkd.errors import UsageError

paho = pytest.importorskip("paho.mqtt.client")
amqtt = pytest.importorskip("amqtt.broker")
from vidkd.live.outputs.mqtt import Mqtt  # noqa: E402


class Broker:
    """A broker in a thread of its own."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        config = {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {}},
        }

        async def start() -> Any:
            broker = amqtt.Broker(config)
            await broker.start()
            return broker

        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._broker = asyncio.run_coroutine_threadsafe(start(), self._loop).result(20)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._broker.shutdown(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def listening(port: int, heard: list[tuple[str, Any]]) -> Any:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)

    def connected(client: Any, *rest: Any) -> None:
        client.subscribe("home/#", qos=1)

    def take(client: Any, data: Any, message: Any) -> None:
        content = message.payload.decode()
        heard.append((message.topic, content if "status" in message.topic else json.loads(content)))

    subscribed = threading.Event()
    client.on_connect, client.on_message = connected, take
    client.on_subscribe = lambda *rest: subscribed.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert subscribed.wait(10)
    return client


def test_events_outlast_a_broker_that_is_away(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Mqtt(f"mqtt://127.0.0.1:{port}/home/door cam")
    output.event(event(1, "begin", 1.0))
    until(lambda: "cannot be reached" in capsys.readouterr().err)
    heard: list[tuple[str, Any]] = []
    broker = Broker(port)
    listener = listening(port, heard)
    until(lambda: len(heard) >= 2)
    broker.stop()
    listener.loop_stop()
    output.event(event(1, "end", 1.0, 2.5))
    broker = Broker(port)
    listener = listening(port, heard)
    until(lambda: output.counts.done == 2)
    output.close()
    until(lambda: heard[-1] == ("home/door cam/status", "offline"))
    listener.loop_stop()
    broker.stop()
    states = [message["state"] for topic, message in heard if topic == "home/door cam"]
    assert list(dict.fromkeys(states)) == ["begin", "end"]
    assert ("home/door cam/status", "online") in heard
    assert (output.counts.dropped, output.counts.failed) == (0, 0)


@pytest.mark.parametrize(
    "url",
    ["http://host/x", "mqtt://host", "mqtt:///x", "mqtt://host/a/+/b", "mqtt://me:s3cret@h/x"],
)
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(UsageError) as error:
        Mqtt(url)
    assert "s3cret" not in str(error.value)
