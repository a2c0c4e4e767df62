"""``models/pooling-study.md``, with every number from the results in ``tests/benchmarks/results``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from poolembed.compare.contenders import CONTENDERS
from poolembed.compare.results import Results
from poolembed.compare.statistics import Estimate
from poolembed.compare.tables import NAMES, about, difference, main_table, other_table, percent, search_table, table
from tests.benchmarks.common import RESULTS
from tests.benchmarks.study.extras import summary

PAGE = Path(__file__).parents[3] / "models" / "pooling-study.md"
FINDINGS = Path(__file__).with_name("findings.md")

TITLES = {
    "esc10": ("Environmental sounds", "ESC-10: 400 clips of 5 s, ten classes of everyday sounds."),
    "mridangam": ("Drum strokes", "129 strokes of a mridangam, 13 kinds, about 1.5 s each."),
    "notes": (
        "Instrument notes",
        "1,280 single notes of 16 instruments from two General MIDI soundfonts, at random velocity and length; a fold "
        "is six semitones in a row of each instrument, so that test notes are of other pitches than training notes.",
    ),
    "segments": (
        "Retrieval",
        "Twelve segments of 4 s of each of 70 pieces of music; which segment is of the same piece? Trained by "
        "supervised contrastive loss on other pieces.",
    ),
    "needles-predictions": (
        "Needles in haystacks, predictions pooled",
        "Soundscapes of 10 to 60 s: one to four events of 0.5 to 3 s from ESC-10, at 0, 6 or 12 dB above the music "
        "they sound in, labelled as a whole. Every frame is classified and the probabilities are pooled, one alpha or "
        "p per class: multiple-instance learning, as in the AutoPool paper.",
    ),
    "needles-features": (
        "Needles in haystacks, features pooled",
        "The same soundscapes; here features are pooled to an embedding, which is classified.",
    ),
}

HEAD = """\
# The pooling study

Which temporal pooling should a model have? Twelve of them side by side: the same small encoder, the same seeds, the
same batches; only the pooling differs, and each that learns gets the same small search over its own learning rate and
start. Made by `poolembed compare`; all of it again, data included, by one command:

```sh
python -m tests.benchmarks.study WORK --esc10 ESC10 --mridangam MRIDANGAM --music SONGS
```

"""


def write(found: dict[str, Results]) -> None:
    """Write the page from the studies that there are."""
    parts = [HEAD.rstrip()]
    if FINDINGS.exists():
        parts.append(FINDINGS.read_text(encoding="utf-8").strip())
    if found:
        parts += ["## Overview", overview(found)]
    for name, results in found.items():
        parts += section(name, results)
    parts += ["## How it was done", method(found)]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(PAGE.name)


def overview(found: dict[str, Results]) -> str:
    """Mean pooling's score and everybody's difference from it, study by study."""
    header = ["pooling", *(TITLES[name][0] for name in found)]
    rows = []
    for contender in CONTENDERS.values():
        cells = []
        for results in found.values():
            row = next((row for row in results.rows if row.name == contender.name), None)
            if row is None:
                cells.append("-")
            elif not row.minus_mean:
                cells.append(percent(row.test[results.metric]))
            else:
                cells.append(difference(row.minus_mean[results.metric]))
        rows.append([contender.title, *cells])
    metrics = ", ".join(f"{TITLES[name][0].lower()}: {NAMES[results.metric]}" for name, results in found.items())
    differences = sum(len(results.rows) - 1 for results in found.values())
    words = (
        f"Mean pooling's score in percent, and how many points each other pooling is above it, ± half the 95 % "
        f"interval over seeds; **bold** where that leaves out 0 ({metrics}). Of the {differences} differences here "
        f"about one in twenty would be bold by chance alone."
    )
    return f"{words}\n\n{table(header, rows)}"


def section(name: str, results: Results) -> list[str]:
    """All of one study."""
    title, what = TITLES[name]
    figure = f"../tests/benchmarks/results/pooling-{name}.svg"
    losses = [(row.first_loss, row.last_loss) for row in results.rows]
    parts = [
        f"## {title}",
        f"{what} {about(results)}",
        f"![{title}: {NAMES[results.metric]} of every pooling, and its difference from mean pooling]({figure})",
        main_table(results),
        f"Training loss, mean over an epoch: {min(a for a, _ in losses):.2f} to {max(a for a, _ in losses):.2f} in the "
        f"first, {min(b for _, b in losses):.2f} to {max(b for _, b in losses):.2f} in the last.",
    ]
    extra = json.loads((RESULTS / f"pooling-{name}.extras.json").read_text(encoding="utf-8"))
    if "scores" in extra:
        parts += needles(results, summary(results, extra["scores"]))
    if len(results.metrics) > 1:
        parts += ["Other metrics:", other_table(results)]
    return [*parts, "What the search chose, on the validation side:", search_table(results)]


def needles(results: Results, scores: dict[str, dict[str, tuple[Estimate, Any]]]) -> list[str]:
    """Tables by length and level, at ten times the length, and of single frames."""
    keys = list(next(iter(scores.values())))

    def rows(wanted: list[str]) -> list[list[str]]:
        return [[row.title, *(percent(scores[row.name][key][0]) for key in wanted)] for row in results.rows]

    by = [key for key in keys if key.startswith("map, ") and (key.endswith((" s", " dB")))]
    long = ["map, as trained", "map, 10 x as long", "map, lost by length"]
    f1 = ["macro_f1, as trained", "macro_f1, 10 x as long"]
    parts = [
        "Mean average precision by length of the soundscape, and by how far events are above the music:",
        table(["pooling", *(key.removeprefix("map, ") for key in by)], rows(by)),
        "The first 60 test soundscapes, and the same events in music ten times as long (100 to 600 s):",
        table(["pooling", "mAP", "mAP, 10 x as long", "change", "macro-F1", "macro-F1, 10 x as long"], rows(long + f1)),
    ]
    frames = [key for key in keys if key.startswith("frames: ")]
    if frames:
        parts += [
            "When: single frames of a quarter of a second, against when the events really sound:",
            table(["pooling", "frame macro-F1 at 0.5", "frame mAP"], rows(frames)),
        ]
    return parts


def method(found: dict[str, Results]) -> str:
    """What holds for all studies, and what they cost."""
    spent = []
    for name, results in found.items():
        extra = json.loads((RESULTS / f"pooling-{name}.extras.json").read_text(encoding="utf-8"))
        runs = sum(len(row.runs) + len(row.search) for row in results.rows)
        spent.append([TITLES[name][0], str(runs), f"{results.seconds / 60:.0f}", f"{extra['machine']['processor']}"])
    words = (
        "Runs of one seed start from the same encoder, and but for the two poolings with twice as many outputs "
        "from the same projection and classifier; they see the same clips in the same order. The search runs on "
        "seed 0 and is chosen by the validation side; final runs have other seeds, and only they are scored on "
        "the test side. Where data come in folds, the last validates always and the others test in turn from seed "
        "to seed, so the intervals cover folds as well as seeds, and nothing was chosen by a clip that is tested "
        "on. With five seeds an interval is 1.24 standard deviations of a single run either way. The encoder is "
        "small (see `small_model` in `poolembed/compare/config.py`) and has nothing beside the pooled frame "
        "features that could make up for what a pooling loses."
    )
    return f"{words}\n\n" + table(["study", "runs", "minutes of one core", "processor"], spent)
