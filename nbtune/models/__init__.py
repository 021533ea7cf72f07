"""Models: the catalogue, loading and quantizing, and the bases that cells and runs share. Importing this imports no torch."""

from nbtune.models.catalogue import CATALOGUE, DEFAULT_DECODER, DEFAULT_ENCODER, get
from nbtune.models.shared import load, loaded_tokenizer, unload, warm_up

__all__ = ["CATALOGUE", "DEFAULT_DECODER", "DEFAULT_ENCODER", "get", "load", "loaded_tokenizer", "unload", "warm_up"]
