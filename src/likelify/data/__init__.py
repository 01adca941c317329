"""Sources of data behind one contract; they know nothing of models."""

from likelify.data.catalog import FROM_FILES, SOURCES, open_source
from likelify.data.derived import resized, subset
from likelify.data.source import ArraySource, Batch, Source, SplitName
from likelify.data.tables import TableSource, table

__all__ = [
    "FROM_FILES",
    "SOURCES",
    "ArraySource",
    "Batch",
    "Source",
    "SplitName",
    "TableSource",
    "open_source",
    "resized",
    "subset",
    "table",
]
