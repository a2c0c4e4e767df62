"""What the run was trained on, and its configuration."""

from __future__ import annotations

from poolembed.train.configfile import RUN, format_config
from poolembed.train.report.files import RunFiles
from poolembed.train.report.page import Html, element, listing, more, paragraph, table
from poolembed.train.results import RESULTS

LISTED = 50
"""Clips left out that are listed; results.json has all."""

FEW = 20
"""Classes that are shown without being asked for."""


def data(run: RunFiles) -> Html:
    """Sides, classes, and what was left out and why."""
    report = run.results["data"]
    sides, dropped = report["sides"], report["dropped"]
    grouped = any(side["groups"] for side in sides.values())
    rows = [
        [name, side["clips"], *([side["groups"]] if grouped else []), side["hours"]] for name, side in sides.items()
    ]
    parts = [table(["side", "clips", *(["groups"] if grouped else []), "hours"], rows, numbers=".2f")]
    if report["notes"]:
        parts.append(listing(report["notes"]))
    for column, labels in report["labels"].items():
        counts = [[label, *(of[side] for side in sides), sum(of.values())] for label, of in labels.items()]
        title = f"Clips of each of the {len(labels):,} classes of {column}"
        made = table(["class", *sides, "all"], counts, numbers="d", caption=title if len(labels) <= FEW else "")
        parts.append(made if len(labels) <= FEW else more(title, made))
    if not dropped:
        parts.append(paragraph("No clip was left out."))
        return Html("".join(parts))
    rows = [[element("code", key), reason] for key, reason in list(dropped.items())[:LISTED]]
    parts += [element("h3", f"{len(dropped):,} left out"), table(["clip", "why"], rows, numbers="d")]
    if len(dropped) > LISTED:
        parts.append(paragraph(f"... and {len(dropped) - LISTED:,} more, in {RESULTS}."))
    return Html("".join(parts))


def configuration(run: RunFiles) -> Html:
    """``run.toml``, and how to use it."""
    again = f"poolembed train --config {RUN} -o another"
    lines = Html("\n".join(element("span", line) for line in format_config(run.config).splitlines()))
    return Html(paragraph("The same run again: ", element("code", again)) + element("pre", element("code", lines)))
