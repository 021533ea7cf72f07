"""The only way that a model is asked: scoring given answers, and generating."""

from nbtune.inference.classifying import engine_for
from nbtune.inference.engine import Decoding, Engine

__all__ = ["Decoding", "Engine", "engine_for"]
