"""Hard prompt tuning: variants of a template are raced on rows that are no test rows, and more are written by a proposer."""

from nbtune.prompts.racing import Race, race

__all__ = ["Race", "race"]
