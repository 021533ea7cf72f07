"""What a training would need, told before anything is loaded."""

from __future__ import annotations

from nbtune.estimate.core import Estimate, counted, estimate, estimate_spec
from nbtune.estimate.fitting import changes_that_fit, fits, in_memory, resolve_checkpointing

__all__ = ["Estimate", "changes_that_fit", "counted", "estimate", "estimate_spec", "fits", "in_memory", "resolve_checkpointing"]
