"""The loop and what belongs to it: optimizer, checkpoints, controls, looks at the dev rows."""

__all__: list[str] = []
