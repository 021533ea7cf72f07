"""What a training would need, told before anything is loaded."""

from __future__ import annotations

from nbtune.estimate.core import Estimate, estimate, estimate_spec

__all__ = ["Estimate", "estimate", "estimate_spec"]
