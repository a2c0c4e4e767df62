"""An index: a file that finds nearly the nearest vectors without looking at them all. Built with usearch.

file.py        the file: its head, its parts, how it is written and checked
names.py       keys and paths, read one by one
graph.py       which vectors are near which: all that is used of usearch
searching.py   an index that is open
building.py    a collection to a file, anew or from what the file already has
measuring.py   how much of the exact answer it finds, and how wide it has to look for that
"""

from poolembed.search.index.building import Built, build_index
from poolembed.search.index.searching import Index, is_index, open_index

__all__ = ["Built", "Index", "build_index", "is_index", "open_index"]
