"""Files at addresses: ``s3://``, ``gs://``, ``https://`` and ``hf://``."""

from vidkd.storage.addresses import scrub, without_credentials
from vidkd.storage.local_copy import machine, remember_hash, remembered
from vidkd.storage.remote import RemoteFile, RemotePath, as_path, as_paths, spooled
from vidkd.storage.stores import StorageError, UnansweredError, info, remove, store, upload

__all__ = [
    "RemoteFile",
    "RemotePath",
    "StorageError",
    "UnansweredError",
    "as_path",
    "as_paths",
    "info",
    "machine",
    "remember_hash",
    "remembered",
    "remove",
    "scrub",
    "spooled",
    "store",
    "upload",
    "without_credentials",
]
