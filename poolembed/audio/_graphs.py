"""Filter graphs that do not outlive their use by much.

From version 19 on PyAV's graph and its filters refer to each other, so that a graph which is let go stays, with its
decoder and its copy of the file's descriptor, until Python's collector comes by. It comes for objects in numbers, and a
graph is few objects that hold much: thousands of songs would leave as many files open. So graphs are counted here, and
the collector is called when there are many. With PyAV 17 and 18 there never are.
"""

from __future__ import annotations

import gc
import threading
import weakref

import av.filter

_MANY = 32
"""Graphs that may be about, unless more are in use at once."""

_alive: weakref.WeakSet[av.filter.Graph] = weakref.WeakSet()
_lock = threading.RLock()  # the collector may come by while it is held, and run anything
_limit = _MANY


def new_graph() -> av.filter.Graph:
    """An empty filter graph; it is freed once nobody has it, though not always at once."""
    global _limit  # noqa: PLW0603
    graph = av.filter.Graph()
    with _lock:
        if len(_alive) >= _limit:
            gc.collect(1)  # short files' graphs are young, and all the library's other objects need not be looked at
            if len(_alive) >= _limit:
                gc.collect()
                _limit = max(_MANY, 2 * len(_alive))  # as many as are really in use, and as many again
        _alive.add(graph)
    return graph
