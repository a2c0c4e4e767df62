"""Labelled clips: reading them from folders and tables, dividing them into splits, reporting what there is."""

from poolembed.labels.clips import SPLITS, Clip, Labelled, Split
from poolembed.labels.division import Division, divide, grouped_folds
from poolembed.labels.reading import read_labels
from poolembed.labels.report import DataReport, SplitReport, report_data

__all__ = [
    "SPLITS",
    "Clip",
    "DataReport",
    "Division",
    "Labelled",
    "Split",
    "SplitReport",
    "divide",
    "grouped_folds",
    "read_labels",
    "report_data",
]
