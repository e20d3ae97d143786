"""The cache: one HDF5 file per video and artefact, with full provenance and atomic writes."""

from vidkd.cache.check import list_cache, remove_leftovers, verify, verify_cache
from vidkd.cache.claims import claim, claimed, drop_abandoned
from vidkd.cache.layout import cache_files, cache_path, encoder_folders
from vidkd.cache.packing import Packed, pack_cache, unpack_cache
from vidkd.cache.packs import present
from vidkd.cache.provenance import (
    Artefact,
    Provenance,
    Source,
    describe_source,
    differences,
    library_versions,
)
from vidkd.cache.reader import CacheFile, state
from vidkd.cache.writer import CacheWriter

__all__ = [
    "Artefact",
    "CacheFile",
    "CacheWriter",
    "Packed",
    "Provenance",
    "Source",
    "cache_files",
    "cache_path",
    "claim",
    "claimed",
    "describe_source",
    "differences",
    "drop_abandoned",
    "encoder_folders",
    "library_versions",
    "list_cache",
    "pack_cache",
    "present",
    "remove_leftovers",
    "state",
    "unpack_cache",
    "verify",
    "verify_cache",
]
