"""From videos to the cache: optical flow, poses, and the features of snippets."""

from vidkd.features.jobs import JobResult, plan_jobs, run_jobs, shard
from vidkd.features.tasks import Extraction, FeatureTask, FlowTask, Task, feature_task
from vidkd.streams.base import FeatureSettings

__all__ = [
    "Extraction",
    "FeatureSettings",
    "FeatureTask",
    "FlowTask",
    "JobResult",
    "Task",
    "feature_task",
    "plan_jobs",
    "run_jobs",
    "shard",
]
