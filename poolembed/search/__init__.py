"""Vectors and what is near them: collections on disk, search, duplicates, layouts."""
