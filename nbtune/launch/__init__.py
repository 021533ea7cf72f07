"""Where a run runs: in a thread of this process so far."""

__all__: list[str] = []
