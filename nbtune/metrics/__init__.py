"""How good answers are, how sure that is, and whether one column beats another."""

from __future__ import annotations

from nbtune.metrics.scores import METRICS, Metric, metric_of
from nbtune.metrics.statistics import Difference, interval, paired_difference, paired_p_value, score_interval

__all__ = ["METRICS", "Difference", "Metric", "interval", "metric_of", "paired_difference", "paired_p_value", "score_interval"]
