"""An S3 server of this machine, with a proxy before it that can disturb."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import FaultyProxy

from vidkd.storage import stores


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    yield running.get_host_and_port()[1]
    running.stop()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of copies, with requests that are repeated at once."""
    monkeypatch.setenv("VIDKD_STORAGE", str(tmp_path / "copies"))
    monkeypatch.setattr(stores, "_PAUSES", (0.01,) * 6)
    stores._opened.cache_clear()
    yield tmp_path / "copies"
    stores._opened.cache_clear()


@pytest.fixture
def s3(s3_port: int, here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy of the S3 server, which has an empty bucket ``lab``."""
    import boto3
    import s3fs

    with FaultyProxy(s3_port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HTTP_PROXY", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        s3fs.S3FileSystem.clear_instance_cache()
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3_port}")
        client.create_bucket(Bucket="lab")
        yield proxy
        for item in client.list_objects_v2(Bucket="lab").get("Contents", []):
            client.delete_object(Bucket="lab", Key=item["Key"])
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def objects(s3_port: int, s3: FaultyProxy) -> Callable[[], dict[str, bytes]]:
    """Return what the bucket really holds, asked for without vidkd and the proxy."""
    import boto3

    client: Any = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3_port}")

    def found() -> dict[str, bytes]:
        return {
            item["Key"]: client.get_object(Bucket="lab", Key=item["Key"])["Body"].read()
            for item in client.list_objects_v2(Bucket="lab").get("Contents", [])
        }

    return found


@pytest.fixture
def noise() -> bytes:
    """More bytes than a block has, and not a whole number of blocks."""
    return np.random.default_rng(0).bytes(700_001)
