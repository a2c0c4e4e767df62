"""`poolembed.open`: songs, whatever wrote them, and every way to search them from Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile

import poolembed
from poolembed.errors import AudioError, BundleNotFoundError, PoolembedError, UsageError, VectorsError
from tests.conftest import RATE, noise
from tests.search.copies import direction, embedded, write

DEGREES = {"a.wav": 0.0, "b/c d.flac": 10.0, "b/e.mp3": 30.0, "ü.wav": 60.0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with four embedded songs in ``out``, of which the second is there and has tags."""
    path = tmp_path / "songs" / "b" / "c d.flac"
    path.parent.mkdir(parents=True)
    with soundfile.SoundFile(path, "w", 8000, 1) as song:
        song.title, song.artist = "Für Elise", "Ludwig"
        song.write(np.zeros(20_000))
    embedded(tmp_path, DEGREES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keys(hits: list[poolembed.Hit]) -> list[str]:
    return [hit.key for hit in hits]


class TestOpening:
    @pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl"])
    def test_what_embed_writes(self, tmp_path: Path, format: Literal["npy", "matrix", "parquet", "jsonl"]) -> None:
        if format == "parquet":
            pytest.importorskip("pyarrow")
        songs = poolembed.open(embedded(tmp_path, DEGREES, format))
        assert len(songs) == 4
        assert list(songs) == songs.paths == [f"{tmp_path}/songs/{name}" for name in DEGREES]
        np.testing.assert_array_equal(songs.vectors, np.array([direction(a) for a in DEGREES.values()], np.float32))
        assert songs.model is not None
        assert (songs.model.name, songs.model.fingerprint, songs.model.embedding_size) == ("m", "f" * 64, 2)
        assert repr(songs) == f"<4 songs of {tmp_path}/out, 2 numbers each, of the model m>"
        assert keys(songs.search("b/e.mp3")) == ["b/c d.flac", "a.wav", "ü.wav"]

    def test_what_index_writes(self, folder: Path) -> None:
        pytest.importorskip("usearch")
        from poolembed.search.index import build_index

        build_index("out", "x.index")
        songs = poolembed.open("x.index")
        assert (len(songs), songs.paths) == (4, poolembed.open("out").paths)
        assert keys(songs.search("b/e.mp3", k=1)) == ["b/c d.flac"]

    def test_what_push_writes(self, folder: Path) -> None:
        pytest.importorskip("lance")
        from poolembed.search.collection import open_collection
        from poolembed.search.push import push

        push(open_collection("out"), "x.lance")
        songs = poolembed.open("x.lance")
        assert (len(songs), songs.paths) == (4, poolembed.open("out").paths)
        assert songs.vectors.shape == (4, 2)
        np.testing.assert_allclose(songs.vectors[[1]], [direction(10)], atol=1e-7)
        assert keys(songs.search("b/e.mp3", k=1)) == ["b/c d.flac"]

    def test_a_matrix_with_paths_and_without(self, folder: Path) -> None:
        np.save("x.npy", np.array([direction(a) for a in (0, 50, 20)]))
        Path("paths.txt").write_text("a.mp3\nb.mp3\nc.mp3\n")
        songs = poolembed.open("x.npy", paths="paths.txt")
        assert (songs.paths, songs.model, songs.has_paths) == (["a.mp3", "b.mp3", "c.mp3"], None, True)
        assert [hit.path for hit in songs.search(direction(21))] == ["c.mp3", "a.mp3", "b.mp3"]
        bare = poolembed.open("x.npy")
        assert (bare.paths, bare.has_paths) == (["0", "1", "2"], False)
        assert repr(bare) == "<3 songs of x.npy, 2 numbers each>"

    def test_the_first_numbers_of_nested_vectors(self, folder: Path) -> None:
        np.save("x.npy", [[1.0, 0.0, 9.0], [1.0, 1.0, -9.0], [0.0, 1.0, 9.0]])
        songs = poolembed.open("x.npy", dim=2)
        assert [hit.path for hit in songs.search([0.9, 1, 5])] == [hit.path for hit in songs.search([0.9, 1])]
        with pytest.raises(UsageError, match="have 3 numbers"):
            poolembed.open("x.npy", dim=4)

    def test_nothing_there(self, folder: Path) -> None:
        with pytest.raises(VectorsError, match="no collection nowhere") as caught:
            poolembed.open("nowhere")
        assert "poolembed embed" in (caught.value.hint or "")


class TestSearching:
    def test_a_hit(self, folder: Path) -> None:
        first, second, third = poolembed.open("out").search("a.wav")
        path = f"{folder}/songs/b/c d.flac"
        assert first == poolembed.Hit(path, 0.984808, "Für Elise", "Ludwig", "b/c d.flac", 1)
        assert (second.title, second.artist, second.rank, third.cosine) == (None, None, 2, 0.5)

    @pytest.mark.parametrize("query", [direction(29), np.array(direction(29)), np.array(direction(29), np.float32) * 9])
    def test_a_vector(self, folder: Path, query: Any) -> None:
        songs = poolembed.open("out")
        assert keys(songs.search(query, k=2)) == ["b/e.mp3", "b/c d.flac"]
        np.save("q.npy", query)
        assert songs.search("q.npy") == songs.search(Path("q.npy")) == songs.search(query)

    def test_several_songs_have_one_answer(self, folder: Path) -> None:
        songs = poolembed.open("out")
        hits = songs.search(["a.wav", Path("ü.wav")])
        assert keys(hits) == ["b/e.mp3", "b/c d.flac"]
        assert hits[0].cosine == 1
        assert keys(songs.search(["a.wav", np.array(direction(60))])) == ["b/e.mp3", "b/c d.flac", "ü.wav"]
        assert songs.search(songs.vectors[[0, 3]], k=1)[0].cosine == 1
        assert songs.search(["a.wav"]) == songs.search("a.wav")

    def test_more_hits_than_memory_would_hold(self, folder: Path) -> None:
        songs = poolembed.open("out")
        assert len(songs.search(songs.vectors[0], k=10**12)) == len(songs)

    def test_filters_and_the_query_itself(self, folder: Path) -> None:
        songs = poolembed.open("out")
        assert keys(songs.search("a.wav", include=["b/*"], exclude=["*.mp3"])) == ["b/c d.flac"]
        assert keys(songs.search("a.wav", k=1, with_query=True)) == ["a.wav"]

    def test_neighbours_of_every_song(self, folder: Path) -> None:
        songs = poolembed.open("out")
        found = {path: keys(hits) for path, hits in songs.neighbours(k=1)}
        assert list(found) == songs.paths
        assert list(found.values()) == [["b/c d.flac"], ["a.wav"], ["b/c d.flac"], ["b/e.mp3"]]

    def test_each_of_several_and_what_fails(self, folder: Path) -> None:
        answers = poolembed.open("out").search_each(["a.wav", "no.mp3", np.array([0.0, 0.0])], k=1)
        assert {name: str(error) for name, error in answers.failures.items()} == {
            "no.mp3": "no such file, and no song of out",
            "vector": "zeros alone, which is near to nothing",
        }
        assert [(query, keys(hits)) for query, hits in answers] == [("a.wav", ["b/c d.flac"])]

    def test_duplicates(self, tmp_path: Path) -> None:
        for name in ("a.flac", "b.flac", "c.flac"):
            write(tmp_path / "songs" / name)
        found = poolembed.open(embedded(tmp_path, {"a.flac": 0, "b.flac": 1, "c.flac": 90})).duplicates()
        assert len(found) == 1
        (group,) = found
        assert [song.key for song in group.songs] == ["a.flac", "b.flac"]

    @pytest.mark.parametrize(
        ("query", "options", "error", "words"),
        [
            ("no.mp3", {}, VectorsError, "no.mp3: no such file, and no song of out"),
            (["a.wav", "no.mp3"], {}, VectorsError, "no.mp3: no such file"),
            ([1.0, 2.0, 3.0], {}, VectorsError, "3 numbers, and the vectors of out have 2"),
            ([0.0, 0.0], {}, VectorsError, "zeros alone"),
            ([float("nan"), 0.0], {}, VectorsError, "NaN"),
            ([[1.0], [2.0, 3.0]], {}, UsageError, "neither a path nor a vector"),
            (None, {}, UsageError, "nothing to search for"),
            ([], {}, VectorsError, "0 numbers"),
            (np.zeros((0, 2)), {}, UsageError, "nothing to search for"),
            ("-", {}, VectorsError, "no such file"),
            ("a.wav", {"k": 0}, UsageError, "k must be at least 1"),
            (3, {}, UsageError, "neither a path nor a vector"),
            ("a\0b", {}, VectorsError, "no such file"),
            ("a.wav", {"k": 2.0}, UsageError, "and a whole number"),
            ("a.wav", {"include": "*.wav"}, UsageError, "lists, not one string"),
            ("a.wav", {"sample_rate": 8000}, UsageError, "sample_rate is for samples"),
            ("a.wav", {"include": ["*.opus"]}, VectorsError, "left by the filters"),
        ],
    )
    def test_refused(self, folder: Path, query: Any, options: Any, error: type[PoolembedError], words: str) -> None:
        with pytest.raises(error, match=words):
            poolembed.open("out").search(query, **options)

    @pytest.mark.parametrize("wrong", [{"threshold": np.nan}, {"threshold": 2}, {"tolerance": -1}, {"threshold": ".9"}])
    def test_duplicates_by_what_is_no_such_number(self, folder: Path, wrong: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=f"{next(iter(wrong))} must be a number from"):
            poolembed.open("out").duplicates(**wrong)

    def test_samples_whose_rate_was_forgotten(self, folder: Path) -> None:
        with pytest.raises(VectorsError) as error:
            poolembed.open("out").search(np.ones(8000, np.float32))
        assert "sample_rate" in str(error.value.hint)


class TestAudio:
    @pytest.fixture
    def models(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_tiny: Callable[..., Path]) -> Path:
        """Models ``toy`` and ``other``; three songs, of which ``embeddings`` has the vectors of ``toy``."""
        for number, name in enumerate(("toy", "other")):
            save_tiny(tmp_path / "models", name, seed=number)
        monkeypatch.setenv("POOLEMBED_MODELS", str(tmp_path / "models"))
        monkeypatch.chdir(tmp_path)
        for number in range(3):
            soundfile.write(f"{number}.wav", noise(4000, number), RATE, subtype="FLOAT")
        return tmp_path / "models"

    def open(self, name: str, **options: Any) -> poolembed.Songs:
        """The songs as `name` embeds them, in a directory that says so."""
        from poolembed.audio.find import FoundFile
        from poolembed.embed.outputs import open_output
        from poolembed.embed.song import Embedded
        from poolembed.identity import ModelIdentity

        model = poolembed.load(name)
        identity = ModelIdentity(model.name, model.fingerprint, model.embedding_size)
        files = [FoundFile(f"{number}.wav", f"{number}.wav", "") for number in range(3)]
        with open_output(
            "out", format="matrix", dtype="float32", timestamps=None, model=identity, overwrite=True
        ) as output:
            for job, outcome in zip(output.plan(files).todo, model.outcomes(file.path for file in files), strict=True):
                assert isinstance(outcome, Embedded)
                output.write(job, outcome)
        return poolembed.open("out", **options)

    def test_files_and_samples(self, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        songs = self.open("toy")
        Path("1.wav").rename("new.wav")
        samples = noise(4000, 1)
        loaded: list[Any] = []
        load = poolembed.load

        def counting(name: Any, **options: Any) -> poolembed.Model:
            loaded.append(name)
            return load(name, **options)

        monkeypatch.setattr("poolembed.embed.model.load", counting)
        (hit,) = songs.search("new.wav", k=1)
        assert (hit.key, hit.cosine) == ("1.wav", 1)
        assert songs.search(samples, k=1, sample_rate=RATE) == [hit]
        assert songs.search(samples.tolist(), k=1, sample_rate=RATE) == [hit]
        assert next(iter(songs.search_each(["new.wav", "2.wav"], k=1))) == ("new.wav", [hit])
        assert loaded == ["toy"]

    def test_files_that_are_none(self, models: Path) -> None:
        songs = self.open("toy")
        Path("bad.mp3").write_bytes(b"no music" * 99)
        with pytest.raises(AudioError, match=r"bad\.mp3: not audio"):
            songs.search("bad.mp3")
        with pytest.raises(AudioError):
            songs.search(np.zeros(0), sample_rate=RATE)
        with pytest.raises(UsageError):
            songs.search(np.zeros((2, 2, 2)), sample_rate=RATE)

    def test_the_model(self, models: Path) -> None:
        with pytest.raises(VectorsError, match=r"new\.wav is of the model other .* out of toy"):
            self.open("toy", model="other").search(self.new())
        assert self.open("toy", model=models / "toy").search("new.wav", k=1)[0].cosine == 1
        with pytest.raises(BundleNotFoundError):
            self.open("toy", model="nowhere").search("new.wav")
        songs = self.open("other")
        (models / "other").rename(models / "gone")
        with pytest.raises(VectorsError, match=r"of the model other .* not at hand .*model= of poolembed\.open"):
            songs.search("new.wav")

    def test_a_matrix_of_an_unknown_model(self, models: Path) -> None:
        np.save("x.npy", self.open("toy").vectors)
        with pytest.raises(UsageError, match=r"does not say which model .*model= of poolembed\.open"):
            poolembed.open("x.npy").search(self.new())
        assert poolembed.open("x.npy", model="toy").search("new.wav", k=1)[0].path == "1"

    def new(self) -> str:
        """A song that no collection knows."""
        Path("new.wav").write_bytes(Path("1.wav").read_bytes())
        return "new.wav"


def test_torch_is_left_alone_where_nothing_is_embedded(folder: Path) -> None:
    code = (
        "import sys, poolembed, poolembed.heads, poolembed.search.tagging\n"
        "songs = poolembed.open('out')\n"
        "songs.vectors, songs.paths, songs.model, songs.search('a.wav'), songs.search(songs.vectors[1])\n"
        "list(songs.neighbours())\n"
        "assert 'av' not in sys.modules\n"
        "songs.duplicates()\n"
        "assert not {'torch', 'sklearn', 'pyarrow', 'typer', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
