"""Groups of one recording: the best song first, what could be freed, and what must not be listed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile

from poolembed.search.collection import open_collection
from poolembed.search.duplicates import Duplicates, find_duplicates
from tests.search.copies import direction, embedded, write


def found(source: Path, paths: Path | None = None, **how: Any) -> Duplicates:
    return find_duplicates(open_collection(source, paths), **{"threshold": 0.995, **how})


def names(duplicates: Duplicates) -> list[list[str]]:
    return [[Path(song.path).name for song in group.songs] for group in duplicates.groups]


@pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl"])
def test_copies_of_two_songs(tmp_path: Path, format: Literal["npy", "matrix", "parquet", "jsonl"]) -> None:
    sizes = {}
    for name in ("a.flac", "sub/a.mp3", "b.ogg", "c.wav", "copy of b.ogg"):
        sizes[Path(name).name] = write(tmp_path / "songs" / name).stat().st_size
    degrees = {"a.flac": 0, "b.ogg": 30, "c.wav": 60, "copy of b.ogg": 31, "sub/a.mp3": 1.5}
    duplicates = found(embedded(tmp_path, degrees, format))
    assert sorted(names(duplicates)) == [["a.flac", "a.mp3"], ["b.ogg", "copy of b.ogg"]]
    assert (duplicates.by_length, duplicates.stale, duplicates.links) == (True, 0, 0)
    (group,) = (group for group in duplicates.groups if group.songs[0].key == "a.flac")
    best, copy = group.songs
    assert group.freed == sizes["a.mp3"]
    assert best.cosine == 1
    assert copy.cosine == pytest.approx(np.cos(np.radians(1.5)), abs=1e-6)
    assert (copy.key, copy.path) == ("sub/a.mp3", str(tmp_path / "songs" / "sub" / "a.mp3"))
    assert (best.lossless, best.sample_rate, best.channels) == (True, 16_000, 1)
    assert (copy.lossless, copy.size, copy.duration) == (False, sizes["a.mp3"], 60.0)


@pytest.mark.parametrize(
    ("one", "other", "degrees", "expected"),
    [
        (20.0, 20.0, 30, True), (10.0, 12.0, 30, True), (10.0, 12.1, 30, False), (9.0, 9.0, 35, False),
        (5.0, 5.0, 30, False), (5.0, 5.0, 25, True), (5.0, 6.0, 25, True), (5.0, 6.1, 25, False),
        (1.0, 1.0, 15, False), (1.0, 1.0, 10, True), (1.0, 1.2, 10, True), (1.0, 1.3, 10, False),
        (0.1, 0.2, 2, True), (0.1, 0.21, 2, False), (0.1, 0.1, 5, False),
    ],
)  # fmt: skip
def test_of_short_clips_more_is_asked(tmp_path: Path, one: float, other: float, degrees: float, expected: bool) -> None:
    for name in ("a.flac", "b.flac"):
        write(tmp_path / "songs" / name)
    out = embedded(tmp_path, {"a.flac": (0, one), "b.flac": (degrees, other)})
    assert len(find_duplicates(open_collection(out))) == expected
    assert len(find_duplicates(open_collection(out), threshold=0.8)) == (abs(one - other) <= 2)
    assert len(find_duplicates(open_collection(out), threshold=0.8, tolerance=9)) == 1


def kinds(folder: Path) -> list[str]:
    """The same second in ever worse quality."""
    songs = folder / "songs"
    write(songs / "wide.flac", rate=32_000)
    write(songs / "stereo.flac", channels=2)
    write(songs / "longer.flac", seconds=2)
    write(songs / "as flac.flac")
    write(songs / "as wav.wav")  # as good, and larger
    write(songs / "high stereo.mp3", channels=2, bitrate_mode="CONSTANT", compression_level=0.0)
    write(songs / "low stereo.mp3", channels=2, bitrate_mode="CONSTANT", compression_level=0.9)
    write(songs / "lowest.mp3", bitrate_mode="CONSTANT", compression_level=0.99)
    return [
        "wide.flac", "stereo.flac", "longer.flac", "as flac.flac", "as wav.wav",
        "high stereo.mp3", "low stereo.mp3", "lowest.mp3",
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_the_best_comes_first(tmp_path: Path, seed: int) -> None:
    order = kinds(tmp_path)
    shuffled = np.random.default_rng(seed).permutation(order).tolist()
    seconds = {name: soundfile.info(tmp_path / "songs" / name).duration for name in order}
    duplicates = found(embedded(tmp_path, {name: (seed, seconds[name]) for name in shuffled}))
    assert names(duplicates) == [order]
    songs = duplicates.groups[0].songs
    assert [song.lossless for song in songs] == [True] * 5 + [False] * 3
    rates = [song.bitrate or 0 for song in songs[5:]]
    assert rates[0] > rates[1] > rates[2] > 0
    # One channel does not stand for two, nor a second for two seconds.
    unsure = [song.key for song in songs if song.doubt is not None]
    assert unsure == ["stereo.flac", "longer.flac", "high stereo.mp3", "low stereo.mp3"]
    spare = [name for name in order[1:] if name not in unsure]
    assert [song.key for song in duplicates.groups[0].spare] == spare
    assert duplicates.groups[0].freed == sum((tmp_path / "songs" / name).stat().st_size for name in spare)


def test_most_space_first(tmp_path: Path) -> None:
    degrees = {}
    for number, seconds in enumerate([1.0, 3.0, 2.0]):
        for copy in "xy":
            write(tmp_path / "songs" / f"{seconds}{copy}.wav", seconds)
            degrees[f"{seconds}{copy}.wav"] = 30.0 * number
    duplicates = found(embedded(tmp_path, degrees))
    assert names(duplicates) == [[f"{seconds}x.wav", f"{seconds}y.wav"] for seconds in (3.0, 2.0, 1.0)]
    assert [group.freed for group in duplicates.groups] == [96_044, 64_044, 32_044]


def test_a_chain_is_cut_at_the_best_song(tmp_path: Path) -> None:
    """a, b and c each five degrees from the next: b belongs to a or c; if b is the best, both belong to b."""
    for name in ("a.flac", "b.ogg", "c.ogg"):
        write(tmp_path / "songs" / name)
    duplicates = found(embedded(tmp_path, {"a.flac": 0, "b.ogg": 5, "c.ogg": 10}))
    assert names(duplicates) == [["a.flac", "b.ogg"]]
    write(tmp_path / "songs" / "b.flac", rate=32_000)
    duplicates = found(embedded(tmp_path, {"a.flac": 0, "b.flac": 5, "c.ogg": 10}))
    assert names(duplicates) == [["b.flac", "a.flac", "c.ogg"]]
    assert min(song.cosine for song in duplicates.groups[0].songs) > 0.995


def test_lengths_must_fit(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / "songs" / f"{name}.wav")
    out = embedded(tmp_path, {"a.wav": (0, 201.0), "b.wav": (0, 203.5)})
    assert names(found(out)) == []
    assert names(found(out, tolerance=2.5)) == [["b.wav", "a.wav"]]
    assert names(found(out, tolerance=np.inf)) == [["b.wav", "a.wav"]]
    out = embedded(tmp_path, {"a.wav": (0, 201.0), "b.wav": (0, 203.0)})
    assert names(found(out)) == [["b.wav", "a.wav"]]


def test_lengths_make_no_chain(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / "songs" / f"{name}.wav")
    out = embedded(tmp_path, {"a.wav": (0, 64.0), "b.wav": (0, 62.5), "c.wav": (0, 61.0)})
    assert names(found(out)) == [["a.wav", "b.wav"]]


@pytest.mark.parametrize("change", ["gone", "written to", "another date"])
def test_what_is_not_as_it_was_embedded_is_left_out(tmp_path: Path, change: str) -> None:
    paths = [write(tmp_path / "songs" / name) for name in ("a.flac", "b.mp3", "c.ogg", "d.ogg")]
    out = embedded(tmp_path, {"a.flac": 0, "b.mp3": 0, "c.ogg": 0, "d.ogg": 40})
    if change == "gone":
        paths[0].unlink()
    elif change == "written to":
        paths[0].write_bytes(paths[0].read_bytes() + b"\0")
    else:
        os.utime(paths[0], (1, 1))
    duplicates = found(out)
    assert sorted(names(duplicates)[0]) == ["b.mp3", "c.ogg"]
    assert duplicates.stale == 1
    paths[1].unlink()
    duplicates = found(out)
    assert (duplicates.groups, duplicates.stale) == ([], 2)


@pytest.mark.parametrize("kind", ["link", "link to a folder", "hard link"])
def test_one_file_of_two_names_is_no_duplicate(tmp_path: Path, kind: str) -> None:
    """Whoever deletes the file and keeps the link has lost the song."""
    songs = tmp_path / "songs"
    write(songs / "z" / "a.flac")
    if kind == "link":
        (songs / "a link.flac").symlink_to(songs / "z" / "a.flac")
        other = "a link.flac"
    elif kind == "link to a folder":
        (songs / "a folder").symlink_to(songs / "z")
        other = "a folder/a.flac"
    else:
        (songs / "hard.flac").hardlink_to(songs / "z" / "a.flac")
        other = "hard.flac"
    write(songs / "b.mp3")
    duplicates = found(embedded(tmp_path, {other: 0, "z/a.flac": 0, "y.wav": 50}))
    assert (duplicates.groups, duplicates.links) == ([], 1)
    duplicates = found(embedded(tmp_path, {other: 0, "b.mp3": 0, "z/a.flac": 0}))
    assert duplicates.links == 1
    (group,) = duplicates.groups
    assert [song.key for song in group.songs] == ["hard.flac" if kind == "hard link" else "z/a.flac", "b.mp3"]


def test_vectors_of_another_system(tmp_path: Path) -> None:
    """Nothing but paths is known: files that are there come first, and lengths do not count."""
    write(tmp_path / "b.mp3")
    write(tmp_path / "d.flac", seconds=9)
    np.save(tmp_path / "m.npy", np.array([direction(degrees) for degrees in (0, 0, 60, 0.5, 60)], np.float32))
    listed = [tmp_path / name for name in ("gone.flac", "b.mp3", "other.wav", "d.flac", "another.wav")]
    (tmp_path / "paths.txt").write_text("".join(f"{path}\n" for path in listed))
    duplicates = found(tmp_path / "m.npy", tmp_path / "paths.txt", tolerance=0.0)
    assert names(duplicates) == [["other.wav", "another.wav"], ["d.flac", "b.mp3", "gone.flac"]]
    assert not duplicates.by_length
    d, b, gone = duplicates.groups[1].songs
    assert (d.duration, d.codec, b.codec) == (9, "flac", "mp3")  # they are decoded
    assert (gone.size, gone.duration, gone.bitrate, gone.sample_rate, gone.channels) == (None,) * 5
    assert b.doubt is not None
    assert re.fullmatch(r"the best one is [78]\.\d s longer", b.doubt)
    assert gone.doubt == duplicates.groups[0].songs[1].doubt == "one of the two cannot be looked at"
    assert [group.freed for group in duplicates.groups] == [0, 0]
    duplicates = found(tmp_path / "m.npy", tmp_path / "paths.txt", tolerance=10.0)
    assert duplicates.groups[0].freed == b.size == (tmp_path / "b.mp3").stat().st_size


def test_rows_without_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("m.npy", np.array([direction(degrees) for degrees in (90, 0, 45, 0)], np.float16))
    write(Path("3.wav")).rename("3")  # a file that happens to be called as the row is
    duplicates = found(Path("m.npy"))
    assert names(duplicates) == [["1", "3"]]
    assert duplicates.groups[0].songs[1].size is None


def test_the_one_file_of_a_directory_stands_for_it(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / "songs" / f"{name}.wav")
    out = embedded(tmp_path, {"a.wav": (0, 60.0), "b.wav": (0, 70.0)})
    duplicates = found(out / "embeddings.npy")
    assert (duplicates.groups, duplicates.by_length) == ([], True)
    assert found(out / "embeddings.npy", tolerance=10.0) == found(out, tolerance=10.0)


def test_a_matrix_beside_a_manifest_is_not_of_it(tmp_path: Path) -> None:
    out = embedded(tmp_path, {"a.wav": (0, 60.0), "b.wav": (0, 70.0)})
    np.save(out / "m.npy", np.array([direction(0), direction(0)], np.float32))
    assert not found(out / "m.npy").by_length


def test_a_table_beside_another_manifest_is_not_of_it(tmp_path: Path) -> None:
    """A table may say which model its vectors are of, and so looks like the directory's own."""
    table = embedded(tmp_path / "one", {"c.wav": (0, 60.0), "d.wav": (0, 70.0)}, "parquet") / "embeddings.parquet"
    out = embedded(tmp_path / "two", {"a.wav": 0, "b.wav": 0}, "parquet")
    table.rename(out / "others.parquet")
    assert not found(out / "others.parquet").by_length


def test_no_duplicates(tmp_path: Path) -> None:
    out = embedded(tmp_path, {"a.wav": 0, "b.wav": 30, "c.wav": 60})
    assert found(out) == Duplicates([], 0.995, 2.0, by_length=True, stale=0, links=0, soundless=0)
