"""The tables joined, and shares of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from models.recipe import tables
from models.recipe.copies import CLIPS, stretch
from models.recipe.segments import SECONDS
from models.recipe.takes import generator


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name, kind, count in (("music", "music", 40), ("notes", "notes", 3000)):
        rows = [
            {"path": f"{name}/{number % 40}.flac", "start": number * 1.7, "end": number * 1.7 + 1, "kind": kind}
            for number in range(count)
        ]
        tables.write_table(tmp_path / f"{name}.csv", rows)
    return tmp_path


def read(corpus: Path, name: str) -> list[tuple[str, str, str]]:
    return [(row["kind"], row["path"], row["start"]) for row in tables.read_table(corpus / f"{name}.csv")]


def test_all_of_them(corpus: Path) -> None:
    assert tables.main([str(corpus)]) == 0
    assert read(corpus, "corpus") == read(corpus, "music") + read(corpus, "notes")
    lots = Counter(int(row["draw"]) for row in tables.read_table(corpus / "corpus.csv"))
    assert set(lots) == set(range(100))
    assert max(lots.values()) < 3 * 30


def test_shares(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.main([str(corpus)])
    earlier = read(corpus, "corpus")
    tables.main([str(corpus), "--name", "some", "--share", "notes=20"])
    tables.main([str(corpus), "--name", "more", "--share", "notes=50"])
    tables.main([str(corpus), "--name", "none", "--share", "notes=0", "music=100"])
    assert read(corpus, "corpus") == earlier
    some, more, none = (read(corpus, name) for name in ("some", "more", "none"))
    music = read(corpus, "music")
    assert none == music
    assert set(music) < set(some) < set(more) < set(earlier)
    assert len(some) - len(music) == pytest.approx(600, rel=0.15)
    assert "none.csv" in capsys.readouterr().out
    lots = {row["draw"] for row in tables.read_table(corpus / "some.csv") if row["kind"] == "notes"}
    assert lots == {str(number) for number in range(20)}


@pytest.mark.parametrize("share", ["notes", "notes=", "notes=x", "nights=20"])
def test_no_share(corpus: Path, share: str) -> None:
    with pytest.raises(SystemExit):
        tables.main([str(corpus), "--share", share])


@pytest.mark.parametrize("length", [1, CLIPS - 1, CLIPS, 3 * CLIPS])
def test_stretch_of_a_track(length: int) -> None:
    silent = {2, 9}  # those clips are left out of the table
    numbers = [number for number in range(length) if number not in silent or length == 1]
    clips = [{"start": str(number * SECONDS), "end": str((number + 1) * SECONDS)} for number in numbers]
    begun = set()
    for seed in range(30):
        start, end, chosen = stretch(clips, generator(str(seed)))
        begun.add(start)
        assert chosen == [clip for clip in clips if start <= float(clip["start"]) and float(clip["end"]) <= end]
        assert (str(start), str(end)) == (chosen[0]["start"], chosen[-1]["end"])
        assert min(len(clips), CLIPS) - len(silent) <= len(chosen) <= CLIPS
        assert end - start < (CLIPS + 0.1) * SECONDS
    assert len(begun) == max(1, len(clips) - CLIPS + 1)
