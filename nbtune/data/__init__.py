"""From what a user has to rows, texts and parts: readers, templates, duplicates, splits. Knows no model and no tokenizer."""

from __future__ import annotations

from nbtune.data.duplicates import near_duplicate_groups
from nbtune.data.examples import Example
from nbtune.data.readers import read
from nbtune.data.splits import refuse_overlap, split_rows
from nbtune.data.templates import Template

__all__ = ["Example", "Template", "near_duplicate_groups", "read", "refuse_overlap", "split_rows"]
