"""Scores of music21's corpus as plain notes: ``python -m models.recipe.scores CORPUS`` writes ``CORPUS/scores.jsonl``.

Needs ``pip install music21`` (BSD). Of its corpus only works that are out of copyright are taken, and of these only
encodings whose file forbids nothing. A line is ``{"name": …, "parts": [[[start, end, pitch], …], …]}``, in seconds at
100 quarter notes a minute; ``models.recipe.render`` gives the parts to instruments.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

COMPOSERS = ("bach", "beethoven", "corelli", "handel", "haydn", "joplin", "mozart", "schumann_clara", "weber")
_QUARTER = 0.6  # seconds
_LONGEST = 70.0  # seconds of a score, before its speed is changed
_PARTS = 8


def main(arguments: list[str] | None = None) -> int:
    """Read the scores that an earlier run did not; those that music21 cannot read are named."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.scores", description=__doc__)
    parser.add_argument("corpus", type=Path, help="directory to write to")
    parser.add_argument("--smoke", action="store_true", help="a trial: three scores")
    options = parser.parse_args(arguments)
    try:
        from music21 import corpus as library  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        parser.error("music21 is not installed: pip install music21")
    files = [file for name in COMPOSERS for file in sorted(library.getComposer(name)) if _is_score(Path(file))]
    target: Path = options.corpus / "scores.jsonl"
    done = set()
    if target.is_file():
        done = {json.loads(line)["name"] for line in target.read_text("utf-8").splitlines() if line.endswith("}")}
    with target.open("a", encoding="utf-8") as out:
        for file in files[:3] if options.smoke else files:
            name = "-".join((*Path(file).parts[-2:-1], Path(file).stem))
            if name in done:
                continue
            parts = _read(Path(file))
            if parts:
                out.write(json.dumps({"name": name, "parts": parts}) + "\n")
                out.flush()
            else:
                print(f"{name}: no notes in it", file=sys.stderr)
    print(f"{target}: {len(target.read_text('utf-8').splitlines())} scores")
    return 0


def _is_score(file: Path) -> bool:
    return file.suffix in (".mxl", ".xml", ".musicxml")


def _read(file: Path) -> list[list[tuple[float, float, int]]]:
    from music21 import converter  # type: ignore[import-not-found,unused-ignore]
    from music21.exceptions21 import Music21Exception  # type: ignore[import-not-found,unused-ignore]

    try:
        score: Any = converter.parse(file, forceSource=True)
    except (Music21Exception, ValueError, KeyError, IndexError, AttributeError) as error:
        print(f"{file}: {error}", file=sys.stderr)
        return []
    parts = []
    for part in list(score.parts)[:_PARTS]:
        notes = []
        for element in part.stripTies().flatten().notes:
            start = float(element.offset) * _QUARTER
            end = start + max(float(element.quarterLength), 0.125) * _QUARTER
            if start < _LONGEST:
                notes += [(round(start, 4), round(end, 4), int(pitch.midi)) for pitch in element.pitches]
        if notes:
            parts.append(notes)
    return parts


if __name__ == "__main__":
    sys.exit(main())
