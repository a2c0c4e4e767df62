"""``report.html``: what a training run came to, on one page that needs nothing but itself.

It is made from the run's own directory, so it can be made again at any time. One module a section; `page` has the
skeleton and the look, `charts` draws.
"""

from poolembed.train.report.writing import write_report

__all__ = ["write_report"]
