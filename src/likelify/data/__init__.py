"""Sources of data behind one contract; they know nothing of models."""

from likelify.data.images import SOURCES, open_source
from likelify.data.source import ArraySource, Batch, Source, SplitName

__all__ = ["SOURCES", "ArraySource", "Batch", "Source", "SplitName", "open_source"]
