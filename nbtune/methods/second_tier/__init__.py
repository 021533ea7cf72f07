"""Methods of peft's that pass the contract's tests, and of which nothing more is claimed: one file each, declarations alone."""

__all__: list[str] = []
