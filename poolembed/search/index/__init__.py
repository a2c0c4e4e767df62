"""An index: a file that finds nearly the nearest vectors without looking at them all. Built with usearch.

building.py    a collection to a file
linking.py     vectors into a graph, new or from before
measuring.py   how much of the exact answer a graph finds, and how wide it has to be searched for that
searching.py   an index that is open
graph.py       which vectors are near which: all that is used of usearch
origin.py      the collection that an index is of, and whether it has changed since
file.py        the file: its head, its parts, how it is written and checked
names.py       keys and paths, read one by one
"""

from poolembed.search.index.building import Built, build_index
from poolembed.search.index.searching import Index, is_index, open_index

__all__ = ["Built", "Index", "build_index", "is_index", "open_index"]
