"""Where many jobs are done: processes of this machine, a Ray cluster, or SLURM."""

from vidkd.cluster.executors import CLUSTERS, Executor, LocalPool, executor_for

__all__ = ["CLUSTERS", "Executor", "LocalPool", "executor_for"]
