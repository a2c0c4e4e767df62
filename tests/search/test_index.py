"""An index against exact search: what it finds, how it grows, and what it makes of a file that is not as it was."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolembed.embed.manifest import NAME, Header, Record, Settings
from poolembed.errors import OutputError, UsageError, VectorsError
from poolembed.identity import ModelIdentity
from poolembed.search.collection import Collection, open_collection
from poolembed.search.exact import ExactSearch
from poolembed.search.index import Index, build_index, building, file, is_index, open_index, searching
from poolembed.vectors import RowNumbers

usearch = pytest.importorskip("usearch.index", reason="needs poolembed[index]")

SIZE = 64
COUNT = 3000
MODEL = ModelIdentity("base", "0123456789abcdef", SIZE)

quick = settings(max_examples=50)


@pytest.fixture(autouse=True)
def linked_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads link what each of them sees, so that recall is another one each time."""
    monkeypatch.setattr("poolembed.search.index.building.FEW", 1 << 30)


def clustered(count: int, seed: int = 0, size: int = SIZE) -> NDArray[np.float32]:
    """Unit vectors, most near to one of forty directions, which are the same for every seed."""
    centres = np.random.default_rng(99).standard_normal((40, size))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(0, 40, count)] + random.standard_normal((count, size)) * 0.7
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def songs(
    folder: Path,
    vectors: NDArray[np.float32],
    keys: Sequence[str] | None = None,
    *,
    model: ModelIdentity = MODEL,
) -> Path:
    """What ``poolembed embed --format matrix`` leaves in a folder, which is made or written again."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "embeddings.npy", vectors)
    header = Header(replace(model, embedding_size=vectors.shape[1]), Settings("matrix", "float32", None), "")
    names = [f"{row}.mp3" for row in range(len(vectors))] if keys is None else keys
    records = [
        Record(key, f"/music/{key}", f"/music/{key}", "ok", None, 1, 1.0, 1.0, "embeddings.npy", row)
        for row, key in enumerate(names)
    ]
    lines = [header.to_line(), *(record.to_line() for record in records)]
    (folder / NAME).write_bytes(b"".join(lines))
    return folder


def exactly(vectors: NDArray[np.float32]) -> ExactSearch:
    names = RowNumbers(len(vectors))
    return ExactSearch(Collection("", names, names, vectors, True, None, ""))


def recall(index: Index, vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int = 10) -> float:
    exact = exactly(vectors).nearest(queries, k).rows
    found = index.nearest(queries, k).rows
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(exact.tolist(), found.tolist(), strict=True)]))


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of `COUNT` clustered vectors; not to be written to."""
    folder = tmp_path_factory.mktemp("index")
    build_index(songs(folder / "songs", clustered(COUNT)), folder / "music.index")
    return folder / "music.index"


@pytest.fixture
def by_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the graph even where comparing everything is as quick."""
    monkeypatch.setattr(searching, "LOOKS", 0)


@pytest.mark.usefixtures("by_graph")
class TestFinding:
    def test_nearly_all_of_the_exact_answer(self, music: Path) -> None:
        index = open_index(str(music))
        assert recall(index, clustered(COUNT), clustered(200, seed=1)) > 0.97

    def test_songs_find_themselves_with_exact_cosines(self, music: Path) -> None:
        vectors = clustered(COUNT)
        hits = open_index(str(music)).nearest(vectors, 5)
        assert np.mean(hits.rows[:, 0] == np.arange(COUNT)) > 0.99
        cosines = np.einsum("nd,nkd->nk", vectors, vectors[hits.rows])
        np.testing.assert_allclose(hits.cosines, cosines, atol=1e-3)  # float16
        assert np.all(np.diff(hits.cosines, axis=1) <= 0)

    def test_embeddings_that_crowd_in_one_direction(self, tmp_path: Path) -> None:
        def crowded(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
            vectors = vectors + np.float32(12) / np.float32(np.sqrt(SIZE))
            unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            return unit

        vectors, queries = crowded(clustered(COUNT)), crowded(clustered(200, seed=1))
        assert (vectors @ vectors.T).min() > 0.97
        build_index(songs(tmp_path / "songs", vectors), tmp_path / "i")
        assert recall(open_index(str(tmp_path / "i")), vectors, queries) > 0.9

    def test_one_query_and_many_give_the_same(self, music: Path) -> None:
        index, queries = open_index(str(music)), clustered(20, seed=1)
        together = index.nearest(queries, 7)
        for number, query in enumerate(queries):
            alone = index.nearest(query[None], 7)
            np.testing.assert_array_equal(alone.rows[0], together.rows[number])
            np.testing.assert_array_equal(alone.cosines[0], together.cosines[number])

    @pytest.mark.parametrize("share", [0.5, 0.05, 0.002, 1e-9])
    def test_filters_give_right_answers(self, music: Path, share: float) -> None:
        allowed = np.random.default_rng(0).random(COUNT) < share
        allowed[7] = True
        check_filter(music, allowed)

    def test_a_filter_that_lets_through_only_what_is_far(self, music: Path) -> None:
        vectors, queries = clustered(COUNT), clustered(30, seed=1)
        check_filter(music, (vectors @ queries.T).max(axis=1) < 0.5)

    def test_more_than_there_are(self, music: Path) -> None:
        hits = open_index(str(music)).nearest(clustered(2, seed=1), COUNT + 3)
        assert np.all(hits.rows[:, COUNT:] == -1)
        assert np.isnan(hits.cosines[:, COUNT:]).all()
        assert np.sort(hits.rows[0, :COUNT]).tolist() == list(range(COUNT))

    def test_nothing_allowed(self, music: Path) -> None:
        hits = open_index(str(music)).nearest(clustered(2, seed=1), 3, np.zeros(COUNT, bool))
        assert np.all(hits.rows == -1)
        assert np.isnan(hits.cosines).all()

    @pytest.mark.parametrize(("queries", "k"), [(np.ones((1, 3)), 1), (np.zeros((1, SIZE)), 1), (clustered(1), 0)])
    def test_questions_without_an_answer(self, music: Path, queries: NDArray[Any], k: int) -> None:
        with pytest.raises(UsageError):
            open_index(str(music)).nearest(queries.astype(np.float32), k)


def check_filter(path: Path, allowed: NDArray[np.bool_]) -> None:
    queries = clustered(30, seed=1)
    exact = exactly(clustered(COUNT)).nearest(queries, 10, allowed)
    found = open_index(str(path)).nearest(queries, 10, allowed)
    assert allowed[found.rows[found.rows >= 0]].all()
    np.testing.assert_array_equal(found.rows >= 0, exact.rows >= 0)
    right = [set(a) == set(b) for a, b in zip(found.rows.tolist(), exact.rows.tolist(), strict=True)]
    assert np.mean(right) > 0.9


def test_few_songs_are_compared_exactly(tmp_path: Path) -> None:
    vectors = clustered(500)
    build_index(songs(tmp_path / "songs", vectors), tmp_path / "i")
    index = open_index(str(tmp_path / "i"))
    assert recall(index, vectors, clustered(100, seed=1)) > 0.999  # but for float16
    assert recall(index, vectors, clustered(100, seed=1), k=300) > 0.999


class TestUpdating:
    @pytest.fixture(autouse=True)
    def _by_graph(self, by_graph: None) -> None:
        pass

    def test_added_to_is_as_good_as_built_at_once(self, tmp_path: Path, music: Path) -> None:
        path, vectors = tmp_path / "i", clustered(COUNT)
        for count in (2000, 2600, COUNT):
            built = build_index(songs(tmp_path / "songs", vectors[:count]), path)
        assert (built.songs, built.added, built.removed) == (COUNT, 400, 0)
        queries = clustered(300, seed=1)
        at_once, in_parts = open_index(str(music)), open_index(str(path))
        for width in (16, at_once.width):
            at_once.width = in_parts.width = width
            assert recall(in_parts, vectors, queries) > recall(at_once, vectors, queries) - 0.03

    def test_only_what_is_new_is_linked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, vectors = tmp_path / "i", clustered(400)
        build_index(songs(tmp_path / "songs", vectors[:390]), path)
        linked = []
        add = usearch.Index.add

        def watched(graph: Any, keys: NDArray[np.int64], *others: Any, **options: Any) -> Any:
            linked.extend(keys.tolist())
            return add(graph, keys, *others, **options)

        monkeypatch.setattr(usearch.Index, "add", watched)
        built = build_index(songs(tmp_path / "songs", vectors), path)
        assert (sorted(linked), built.added) == (list(range(390, 400)), 10)

    def test_changed_gone_and_renamed_songs(self, tmp_path: Path) -> None:
        path, vectors = tmp_path / "i", clustered(1000)
        keys = [f"{row}.mp3" for row in range(1000)]
        build_index(songs(tmp_path / "songs", vectors, keys), path)
        order = np.random.default_rng(0).permutation(1000)[:950]  # fifty are gone, all others in another order
        vectors, keys = vectors[order], [keys[row] for row in order]
        vectors[:30] = clustered(30, seed=5)  # thirty embedded again
        keys[40] = "renamed.mp3"
        built = build_index(songs(tmp_path / "songs", vectors, keys), path)
        assert (built.songs, built.added, built.removed) == (950, 30, 80)
        index = open_index(str(path))
        assert list(index.collection.keys) == keys
        assert list(index.collection.paths) == [f"/music/{key}" for key in keys]
        np.testing.assert_array_equal(index.collection.matrix, vectors.astype(np.float16))
        assert np.mean(index.nearest(vectors, 1).rows[:, 0] == np.arange(950)) > 0.99
        assert recall(index, vectors, clustered(100, seed=1)) > 0.97

    def test_former_songs_do_not_crowd_out_others(self, tmp_path: Path) -> None:
        path, query = tmp_path / "i", clustered(1)
        former = query + clustered(100, seed=3) * 0.01
        vectors = np.concatenate([clustered(900, seed=2), former / np.linalg.norm(former, axis=1, keepdims=True)])
        build_index(songs(tmp_path / "songs", vectors), path)
        build_index(songs(tmp_path / "songs", vectors[:900]), path)
        index = open_index(str(path))
        exact = exactly(vectors[:900]).nearest(query, 10)
        np.testing.assert_array_equal(index.nearest(query, 10).rows, exact.rows)

    def test_a_graph_of_many_former_songs_is_built_anew(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "i"
        linked: list[int] = []
        add = usearch.Index.add

        def watched(graph: Any, keys: NDArray[np.int64], *others: Any, **options: Any) -> Any:
            linked[-1] += len(keys)
            return add(graph, keys, *others, **options)

        monkeypatch.setattr(usearch.Index, "add", watched)
        for count in (1000, 850, 700):
            linked.append(0)
            build_index(songs(tmp_path / "songs", clustered(1000)[-count:]), path)
            index = open_index(str(path))
            assert np.mean(index.nearest(clustered(1000)[-count:], 1).rows[:, 0] == np.arange(count)) > 0.99
        assert linked == [1000, 0, 700]

    def test_the_same_again_writes_nothing(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", clustered(200))
        path = tmp_path / "i"
        first = build_index(tmp_path / "x.npy", path)
        before = path.stat().st_mtime_ns, path.read_bytes()
        again = build_index(tmp_path / "x.npy", path)
        assert (path.stat().st_mtime_ns, path.read_bytes()) == before
        assert replace(again, seconds=0, added=200) == replace(first, seconds=0)
        assert again.added == 0

    @quick
    @given(
        former=st.lists(st.integers(0, 5), max_size=12),
        now=st.lists(st.integers(0, 5), max_size=12),
    )
    def test_equal_vectors_keep_their_place(self, former: list[int], now: list[int]) -> None:
        def rows(values: list[int]) -> NDArray[np.float16]:
            return np.array(values, np.float16).reshape(-1, 1)

        found = building.known_rows(rows(now), rows(former)).tolist()
        kept = [number for number in found if number >= 0]
        assert len(kept) == len(set(kept)) == sum((Counter(former) & Counter(now)).values())
        assert all(former[number] == value for number, value in zip(found, now, strict=True) if number >= 0)


class TestOpening:
    def test_it_is_the_collection(self, music: Path) -> None:
        opened, original = open_index(str(music)).collection, open_collection(music.parent / "songs")
        assert (opened.source, len(opened), opened.size, opened.model) == (str(music), COUNT, SIZE, MODEL)
        assert opened.stamp == original.stamp
        assert (list(opened.keys), list(opened.paths)) == (list(original.keys), list(original.paths))
        assert opened.keys[5:9:2] == ["5.mp3", "7.mp3"]
        assert opened.keys[-1] == f"{COUNT - 1}.mp3"
        np.testing.assert_allclose(opened.unit_rows(slice(None)), clustered(COUNT), atol=1e-3)

    def test_rows_without_names(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", clustered(50))
        build_index(tmp_path / "x.npy", tmp_path / "i")
        opened = open_index(str(tmp_path / "i")).collection
        assert not opened.named
        assert opened.paths[3] == "3"

    def test_usearch_can_read_it(self, tmp_path: Path, music: Path) -> None:
        """usearch restores the file by itself, and its keys are the rows, after songs have gone and come too."""
        again = tmp_path / "i"
        shutil.copy(music, again)
        order = np.random.default_rng(0).permutation(COUNT)[: COUNT - 300]
        build_index(songs(tmp_path / "songs", clustered(COUNT)[order]), again)
        for path, vectors in ((music, clustered(COUNT)), (again, clustered(COUNT)[order])):
            for view in (False, True):
                graph = usearch.Index.restore(path, view=view)
                assert (len(graph), graph.ndim) == (len(vectors), SIZE)
                integers = np.asarray(graph.get(np.arange(len(vectors))))  # which is a tuple
                np.testing.assert_allclose(np.corrcoef(np.ravel(integers), np.ravel(vectors))[0, 1], 1, atol=0.02)
                found = graph.search(integers[:50], 1)
                assert np.mean(found.keys[:, 0] == np.arange(50)) > 0.99

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_it_is_mapped_and_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "i"
        build_index(songs(tmp_path / "songs", clustered(1500, size=1024)), path)
        index = open_index(str(path))
        assert resident(path) < 0.3 * path.stat().st_size
        index.nearest(clustered(1, seed=1, size=1024), 3, np.arange(1500) == 5)
        assert index.collection.unit_rows(slice(None)).shape == (1500, 1024)
        assert resident(path) > 0.6 * path.stat().st_size  # or this test would not have noticed

    def test_names_of_any_characters(self, tmp_path: Path) -> None:
        keys = ["ä.mp3", os.fsdecode(b"\xff\xfe.mp3"), "new\nline", " ", "\U0001f600", "z" * 5000]
        build_index(songs(tmp_path / "songs", clustered(6), keys), tmp_path / "i")
        assert list(open_index(str(tmp_path / "i")).collection.keys) == keys

    @quick
    @given(st.lists(st.text(st.characters(exclude_categories=[]), max_size=6), max_size=20))
    def test_names_come_back(self, names: list[str]) -> None:
        packed = file.PackedNames(*file.pack(names), "x")
        assert (list(packed), [packed[row] for row in range(len(names))], packed[:]) == (names, names, names)
        with pytest.raises(IndexError):
            packed[len(names)]

    def test_without_usearch(self, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "usearch.index", None)
        with pytest.raises(UsageError, match="usearch") as caught:
            open_index(str(music))
        assert "'.[index]'" in str(caught.value.hint)
        with pytest.raises(UsageError, match="usearch"):
            build_index(songs(tmp_path / "songs", clustered(5)), tmp_path / "i")
        assert [path.name for path in tmp_path.iterdir()] == ["songs"]


def resident(path: Path) -> int:
    """Bytes of a mapped file that this process has looked at."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


class TestRefusing:
    @pytest.mark.parametrize("other", ["model", "size", "nobody"])
    def test_vectors_of_another_kind(self, tmp_path: Path, music: Path, other: str) -> None:
        path = Path(shutil.copy(music, tmp_path / "i"))
        if other == "nobody":
            np.save(tmp_path / "x.npy", clustered(5))
            source, words = tmp_path / "x.npy", "an unknown model with 64"
        elif other == "size":
            source, words = songs(tmp_path / "songs", clustered(5, size=7)), "model base (01234567) with 7"
        else:
            new = replace(MODEL, name="new", fingerprint="feed")
            source, words = songs(tmp_path / "songs", clustered(5), model=new), "model new (feed) with 64"
        with pytest.raises(OutputError) as caught:
            build_index(source, path)
        assert "model base (01234567) with 64 numbers, and " in caught.value.message
        assert words in caught.value.message
        assert path.read_bytes() == music.read_bytes()

    def test_what_is_no_index_is_not_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "song.mp3").write_bytes(b"music")
        for path in (tmp_path / "song.mp3", tmp_path):
            with pytest.raises(OutputError, match="is there, and is no index"):
                build_index(songs(tmp_path / "songs", clustered(5)), path)
        assert (tmp_path / "song.mp3").read_bytes() == b"music"

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="cannot write"):
            build_index(songs(tmp_path / "songs", clustered(5)), tmp_path / "none" / "i")

    def test_two_at_a_time(self, tmp_path: Path) -> None:
        (tmp_path / ".i.part").mkdir()
        with FileLock(tmp_path / ".i.part" / "lock"), pytest.raises(OutputError, match="another run is writing"):
            build_index(songs(tmp_path / "songs", clustered(5)), tmp_path / "i")

    def test_bad_vectors(self, tmp_path: Path) -> None:
        vectors = clustered(50)
        vectors[3] = 0
        with pytest.raises(VectorsError, match=r"3\.mp3"):
            build_index(songs(tmp_path / "songs", vectors), tmp_path / "i")
        assert [path.name for path in tmp_path.iterdir()] == ["songs"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
    def test_whole_or_not_at_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
        path = tmp_path / "i"
        build_index(songs(tmp_path / "songs", clustered(50)), path)
        before = path.read_bytes()
        for function in ("complete", "known_rows", "replacing"):
            with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, OutputError)):
                patch.setattr(building, function, lambda *arguments: raising(error))
                build_index(songs(tmp_path / "songs", clustered(60)), path)
            assert sorted(path.name for path in tmp_path.iterdir()) == ["i", "songs"]
            assert path.read_bytes() == before

    def test_a_graph_that_comes_out_short(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save = usearch.Index.save

        def short(graph: Any, path: Path) -> None:
            save(graph, path)
            os.truncate(path, 100)

        monkeypatch.setattr(usearch.Index, "save", short)
        with pytest.raises(OutputError, match=r"cannot write .*part: it came out short"):
            build_index(songs(tmp_path / "songs", clustered(20)), tmp_path / "i")
        assert not (tmp_path / "i").exists()

    def test_a_small_index_is_always_the_same(self, tmp_path: Path) -> None:
        collection = songs(tmp_path / "songs", clustered(250))
        build_index(collection, tmp_path / "first")
        for _ in range(5):
            build_index(collection, tmp_path / "again")
            assert (tmp_path / "again").read_bytes() == (tmp_path / "first").read_bytes()
            (tmp_path / "again").unlink()


def raising(error: Any) -> Any:
    raise error


class TestDamage:
    def test_cut_short(self, tmp_path: Path, music: Path) -> None:
        data = music.read_bytes()
        for end in (0, 7, 8, 50, 900, 5000, len(data) // 2, len(data) - 1):
            path = tmp_path / "i"
            path.write_bytes(data[:end])
            with pytest.raises(VectorsError) as caught:
                open_index(str(path))
            assert str(path) in caught.value.message

    def test_longer_than_it_was(self, tmp_path: Path, music: Path) -> None:
        (tmp_path / "i").write_bytes(music.read_bytes() + b"\0")
        with pytest.raises(VectorsError, match="damaged"):
            open_index(str(tmp_path / "i"))

    @pytest.mark.usefixtures("by_graph")
    def test_bytes_changed_anywhere(self, tmp_path: Path, music: Path) -> None:
        """Either it is noticed, or only vectors and names are other ones; nothing crashes."""
        data = bytearray(music.read_bytes())
        path, queries = tmp_path / "i", clustered(3, seed=1)
        noticed = 0
        random = np.random.default_rng(0)
        for place in [*range(0, 1200, 40), *random.integers(1200, len(data), 60).tolist()]:
            bad = data.copy()
            bad[place : place + 16] = random.bytes(16)
            path.write_bytes(bad)
            try:
                index = open_index(str(path))
                index.nearest(queries, 10)
                list(index.collection.keys)
            except VectorsError as error:
                assert str(path) in error.message
                noticed += 1
        assert noticed > 30

    def test_every_link_is_checked(self, tmp_path: Path, music: Path) -> None:
        data = bytearray(music.read_bytes())
        data[usearch.Index.restore(music).serialized_length - 20] ^= 1
        (tmp_path / "i").write_bytes(data)
        with pytest.raises(VectorsError, match="checksum"):
            open_index(str(tmp_path / "i"))

    def test_of_an_earlier_poolembed(self, tmp_path: Path) -> None:
        """One that is from before usearch could read the file is refused, and is built anew by the same command."""
        path = tmp_path / "i"
        head = b'{"__metadata__":{"poolembed_index":"1","about":"{}"}}'
        path.write_bytes(len(head).to_bytes(8, "little") + head)
        assert is_index(str(path))
        with pytest.raises(VectorsError, match="earlier version") as caught:
            open_index(str(path))
        assert f"poolembed index COLLECTION -o {path}" in str(caught.value.hint)
        assert build_index(songs(tmp_path / "songs", clustered(5)), path).added == 5
        assert len(open_index(str(path)).collection) == 5

    @pytest.mark.parametrize("kind", ["alone", "of floats"])
    def test_of_usearch_alone(self, tmp_path: Path, music: Path, kind: str) -> None:
        path = tmp_path / "i"
        graph = usearch.Index.restore(music) if kind == "alone" else usearch.Index(ndim=3)
        graph.save(path)
        before = path.read_bytes()
        assert is_index(str(path))
        for use in (open_index, lambda path: build_index(songs(tmp_path / "songs", clustered(5)), path)):
            with pytest.raises(VectorsError, match="no index, or is damaged"):
                use(str(path))
        assert path.read_bytes() == before

    def test_what_is_an_index(self, tmp_path: Path, music: Path) -> None:
        np.save(tmp_path / "x.npy", clustered(3))
        assert is_index(str(music))
        assert not any(map(is_index, [str(tmp_path), str(tmp_path / "x.npy"), str(tmp_path / "none"), "", "a\0b"]))


class TestAge:
    @pytest.fixture
    def made(self, tmp_path: Path) -> tuple[Path, str]:
        """Vectors with names, and an index of them."""
        source, names = tmp_path / "x.npy", tmp_path / "names of songs.txt"
        np.save(source, clustered(20))
        names.write_text("".join(f"{row}.mp3\n" for row in range(20)))
        build_index(source, tmp_path / "i", paths=names)
        return source, str(tmp_path / "i")

    def test_new(self, made: tuple[Path, str]) -> None:
        assert open_index(made[1]).collection.keys[0] == "0.mp3"

    @pytest.mark.parametrize("changed", ["x.npy", "names of songs.txt"])
    def test_old(self, made: tuple[Path, str], changed: str) -> None:
        path = made[0].parent / changed
        if changed == "x.npy":
            np.save(path, clustered(20, seed=1))
        else:
            path.write_text(path.read_text().replace("3", "4"))
        with pytest.raises(VectorsError, match="older than") as caught:
            open_index(made[1])
        assert f"poolembed index {made[0]} -o {made[1]} --paths '" in str(caught.value.hint)
        build_index(made[0], made[1], paths=made[0].parent / "names of songs.txt")
        open_index(made[1])

    def test_changed_while_it_was_built(self, made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
        def open_and_change(*arguments: Any) -> Collection:
            opened = open_collection(*arguments)
            np.save(made[0], clustered(21))
            return opened

        monkeypatch.setattr(file, "open_collection", open_and_change)
        build_index(made[0], made[1])
        monkeypatch.undo()
        with pytest.raises(VectorsError, match="older"):
            open_index(made[1])

    def test_the_collection_is_not_needed(self, made: tuple[Path, str]) -> None:
        made[0].unlink()
        assert open_index(made[1]).nearest(clustered(1), 1).rows.tolist() == [[0]]

    def test_of_a_collection_that_cannot_be_read(self, made: tuple[Path, str]) -> None:
        made[0].write_bytes(b"")
        with pytest.raises(VectorsError, match="older"):
            open_index(made[1])

    def test_written_again_as_it_was(self, tmp_path: Path) -> None:
        manifest = songs(tmp_path / "songs", clustered(20)) / NAME
        build_index(tmp_path / "songs", tmp_path / "i")
        os.utime(manifest, ns=(1, 1))
        open_index(str(tmp_path / "i"))
        manifest.write_text(manifest.read_text().replace('"/music/3', '"/music/4'))
        with pytest.raises(VectorsError, match="older"):
            open_index(str(tmp_path / "i"))
