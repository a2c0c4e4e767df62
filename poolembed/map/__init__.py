"""One HTML page that shows a collection as a map and plays its songs. The page loads nothing but the songs."""

from poolembed.map.make import Made, make_map

__all__ = ["Made", "make_map"]
