"""An index: a file that finds nearly the nearest vectors without looking at them all. Built with usearch.

building.py    a collection to a file
searching.py   an index that is open
file.py        the file: its parts, how it is written and checked, and the collection that it is of
"""

from poolembed.search.index.building import Built, build_index
from poolembed.search.index.file import is_index
from poolembed.search.index.searching import Index, open_index

__all__ = ["Built", "Index", "build_index", "is_index", "open_index"]
