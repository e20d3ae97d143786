"""From videos to the cache: optical flow, and the features of snippets."""

from vidkd.features.extract import Extraction, cached_flow, extract_features, extract_flow
from vidkd.features.jobs import (
    JobResult,
    Plan,
    extract_features_all,
    extract_flow_all,
    plan_jobs,
    run_jobs,
)
from vidkd.features.tasks import FeatureTask, FlowTask, feature_task

__all__ = [
    "Extraction",
    "FeatureTask",
    "FlowTask",
    "JobResult",
    "Plan",
    "cached_flow",
    "extract_features",
    "extract_features_all",
    "extract_flow",
    "extract_flow_all",
    "feature_task",
    "plan_jobs",
    "run_jobs",
]
