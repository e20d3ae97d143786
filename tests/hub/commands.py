"""Runs commands for the tests, one line of JSON each, in a process whose hub is that of the tests.

huggingface_hub reads its settings once, when it is imported, and importing torch takes seconds.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# pytest does this for the tests themselves.
sys.path.insert(0, str(Path(__file__).parents[1]))

from in_process import vidkd

import vidkd.hub as hub

for line in sys.stdin:
    asked = json.loads(line)
    os.environ.pop("HF_TOKEN", None)
    os.environ.update(asked["environment"])
    hub.download.cache_clear()
    done = vidkd(*asked["arguments"])
    answer = {"code": done.returncode, "out": done.stdout, "err": done.stderr}
    print(json.dumps(answer), flush=True)
