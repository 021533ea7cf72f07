"""Where a run runs: in a thread of this process or in a process of its own, and the queue that both wait in."""

__all__: list[str] = []
