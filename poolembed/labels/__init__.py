"""Labelled clips: reading them from folders and tables, dividing them into sides, reporting what there is."""

from poolembed.labels.clips import SIDES, Clip, Labelled, Side
from poolembed.labels.division import Division, divide, grouped_folds
from poolembed.labels.reading import read_labels
from poolembed.labels.report import DataReport, SideReport, report_data

__all__ = [
    "SIDES",
    "Clip",
    "DataReport",
    "Division",
    "Labelled",
    "Side",
    "SideReport",
    "divide",
    "grouped_folds",
    "read_labels",
    "report_data",
]
