"""Vectors of every format come back with their paths, and go to the clips that they are of."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolembed.audio.find import FoundFile
from poolembed.embed.outputs import JsonLinesStream, OutputDirectory, open_output
from poolembed.embed.song import Embedded, Segments
from poolembed.errors import OutputError, VectorsError
from poolembed.identity import ModelIdentity
from poolembed.vectors import Vectors, match, read_vectors

KEYS = ["a.wav", "b/a.wav", "b/c d.wav", "ü.wav"]
SIZE = 3

quick = settings(max_examples=60)


def vector(number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([number, 0.5, -1.25], np.float32)  # exact in float16 too


def fill(output: OutputDirectory | JsonLinesStream, folder: Path, *, timestamps: bool = False) -> None:
    plan = output.plan([FoundFile(str(folder / key), key, "songs") for key in [*KEYS, "broken.wav"]])
    segments = Segments(np.array([0.0]), np.ones((1, SIZE), np.float32)) if timestamps else None
    for job in plan.todo:
        if job.key == "broken.wav":
            output.fail(job, "no music")
        else:
            output.write(job, Embedded(0, vector(KEYS.index(job.key)), 1.0, segments=segments))


def embedded(root: Path, format: Any, dtype: Any = "float32", timestamps: float | None = None) -> Path:
    """What ``poolembed embed`` leaves: four songs in an odd order, one that failed."""
    identity = ModelIdentity("m", "f" * 64, SIZE)
    with open_output(
        root / "out", format=format, dtype=dtype, timestamps=timestamps, model=identity, overwrite=False
    ) as output:
        fill(output, root / "songs", timestamps=timestamps is not None)
    return root / "out"


def made(keys: list[str]) -> Vectors:
    return Vectors(keys, keys, np.ones((len(keys), 2), np.float32), "x.npy")


class TestReading:
    @pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl"])
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    @pytest.mark.parametrize("timestamps", [None, 1.0])
    def test_what_embed_writes(self, tmp_path: Path, format: str, dtype: str, timestamps: float | None) -> None:
        found = read_vectors(embedded(tmp_path, format, dtype, timestamps))
        assert found.keys == KEYS
        assert found.paths == [str(tmp_path / "songs" / key) for key in KEYS]
        assert found.matrix.dtype == np.float32
        np.testing.assert_array_equal(found.matrix, [vector(number) for number in range(4)])

    @pytest.mark.parametrize("format", ["parquet", "jsonl"])
    def test_tables_by_themselves(self, tmp_path: Path, format: str) -> None:
        (table,) = embedded(tmp_path, format).glob(f"embeddings.{format}")
        moved = table.rename(tmp_path / table.name.upper())
        found = read_vectors(moved)
        assert found.paths == [str(tmp_path / "songs" / key) for key in KEYS]
        assert found.keys == (KEYS if format == "parquet" else found.paths)
        np.testing.assert_array_equal(found.matrix, [vector(number) for number in range(4)])

    @pytest.mark.parametrize("form", ["\\xff", "\\udcff"], ids=["as now", "as 0.1.0 wrote it"])
    def test_bytes_that_are_not_utf_8_are_the_same_song_from_every_format(self, tmp_path: Path, form: str) -> None:
        pa = pytest.importorskip("pyarrow")
        columns = {"path": [f"/songs/{form}.wav"], "key": [f"{form}.wav"], "embedding": [[1.0, 2.0]]}
        pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), tmp_path / "x.parquet")
        found = read_vectors(tmp_path / "x.parquet")
        assert (found.keys, found.paths) == (["\\xff.wav"], ["/songs/\\xff.wav"])
        assert match(found, ["\udcff.wav"]) == [0]
        assert match(made(["songs/\udcff.wav"]), ["\\xff.wav"]) == [0]

    def test_what_embed_writes_to_a_pipe(self, tmp_path: Path) -> None:
        stream = io.BytesIO()
        fill(JsonLinesStream(stream, dtype="float32"), tmp_path)
        (tmp_path / "x.jsonl").write_bytes(stream.getvalue())
        found = read_vectors(tmp_path / "x.jsonl")
        assert found.keys == [str(tmp_path / key) for key in KEYS]
        np.testing.assert_array_equal(found.matrix, [vector(number) for number in range(4)])

    @pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int32])
    @pytest.mark.parametrize("end", ["\n", "", "\r\n"])
    def test_a_bare_matrix(self, tmp_path: Path, dtype: Any, end: str) -> None:
        matrix = np.asfortranarray([[1, 2], [3, 4], [5, 6]], dtype)
        np.save(tmp_path / "x.npy", matrix)
        names = [b"a b.wav", "ü.wav".encode(), b"\xff.wav#t=1,2"] if os.name == "posix" else [b"a", b"b", b"c"]
        separator = end.encode() or b"\n"
        (tmp_path / "paths.txt").write_bytes(separator.join(names) + end.encode())
        found = read_vectors(tmp_path / "x.npy", tmp_path / "paths.txt")
        assert [os.fsencode(key) for key in found.keys] == names
        assert found.matrix.dtype == np.float32
        assert found.matrix.flags.writeable  # torch takes it as it is
        np.testing.assert_array_equal(found.matrix, matrix)

    def test_a_row_that_was_embedded_again(self, tmp_path: Path) -> None:
        """Rows that the manifest does not vouch for are not read: a song that fails now keeps its earlier row."""
        out = embedded(tmp_path, "matrix")
        lines = (out / "manifest.jsonl").read_text().splitlines()
        record = json.loads(lines[2]) | {"status": "failed", "reason": "gone"}
        (out / "manifest.jsonl").write_text("\n".join([*lines, json.dumps(record)]) + "\n")
        found = read_vectors(out)
        assert found.keys == [KEYS[0], *KEYS[2:]]
        np.testing.assert_array_equal(found.matrix, [vector(number) for number in (0, 2, 3)])

    @pytest.mark.parametrize(
        ("matrix", "words"),
        [
            (np.array([[1.0, 2], [np.nan, 1], [0, 1], [np.inf, 0]]), ["2 of the 4", "NaN", "b (row 1), d (row 3)"]),
            (np.array([[1.0, 2], [0, 0], [0, 1], [1, 0]]), ["1 of the 4", "zeros", "b (row 1)"]),
            (np.array([[1e300, 2], [0, 1], [0, 1], [1, 0]]), ["1 of the 4", "infinite", "a (row 0)"]),
            (np.ones((3, 2)), ["3 rows", "4 lines"]),
            (np.ones(4), ["(N, D)", "(4,)"]),
            (np.ones((4, 2), complex), ["complex"]),
            (np.ones((4, 2), bool), ["bool"]),
            (np.array([["a", "b"]] * 4), ["<U1"]),
            (np.array([{}, 1, 2, 3], object), ["pickled"]),
        ],
    )
    def test_matrices_that_are_none(self, tmp_path: Path, matrix: Any, words: list[str]) -> None:
        np.save(tmp_path / "x.npy", matrix, allow_pickle=True)
        (tmp_path / "paths.txt").write_text("a\nb\nc\nd\n")
        with pytest.raises(VectorsError) as caught:
            read_vectors(tmp_path / "x.npy", tmp_path / "paths.txt")
        assert all(word in str(caught.value) for word in [*words, "x.npy"]), str(caught.value)

    def test_nothing_is_unpickled(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> Any:
                return Path.touch, (tmp_path / "sprung",)

        (tmp_path / "paths.txt").write_text("a\n")
        np.save(tmp_path / "x.npy", np.array([Trap()], object), allow_pickle=True)
        (tmp_path / "y.npy").write_bytes(pickle.dumps(Trap()))
        for name in ("x.npy", "y.npy"):
            with pytest.raises(VectorsError):
                read_vectors(tmp_path / name, tmp_path / "paths.txt")
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("x.npy", b"", ["x.npy", "not an .npy file"]),
            ("x.npy", b"\x93NUMPY\x01\x00\x10\x00{'shape': 1e99", ["x.npy", "damaged"]),
            ("x.jsonl", b"{\n", ["line 1"]),
            ("x.jsonl", b'{"path": "a", "embedding": [1, 2]}\n{"path": "b"}\n', ["line 2"]),
            ("x.jsonl", b'{"path": "a", "embedding": ["x"]}\n', ["line 1"]),
            ("x.jsonl", b'{"path": "a", "embedding": [1, 2]}\n{"path": "b", "embedding": [1]}\n', ["one length"]),
            ("x.jsonl", b'{"path": "a", "embedding": [[1, 2]]}\n', ["line 1", "no path and embedding"]),
            ("x.jsonl", b"", ["no vectors"]),
            ("x.parquet", b"", ["x.parquet", "damaged"]),
            ("x.csv", b"a,1,2\n", ["x.csv", "not an .npy file"]),
        ],
    )
    def test_files_that_are_none(self, tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
        (tmp_path / name).write_bytes(content)
        (tmp_path / "paths.txt").write_text("a\n")
        with pytest.raises(VectorsError) as caught:
            read_vectors(tmp_path / name, None if name.endswith(("l", "t")) else tmp_path / "paths.txt")
        assert all(word in str(caught.value) for word in words), str(caught.value)

    def test_parquet_of_something_else(self, tmp_path: Path) -> None:
        parquet = pytest.importorskip("pyarrow.parquet")
        pa = pytest.importorskip("pyarrow")
        for columns, word in (
            ({"path": ["a"], "vector": [[1.0]]}, "no columns"),
            ({"path": ["a"], "embedding": [None]}, "one length"),
            ({"path": ["a"], "embedding": [["x"]]}, "not numbers"),
        ):
            parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
            with pytest.raises(VectorsError, match=word):
                read_vectors(tmp_path / "x.parquet")

    def test_what_is_missing_is_said(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.ones((1, 2)))
        with pytest.raises(VectorsError, match="which path each row is of"):
            read_vectors(tmp_path / "x.npy")
        with pytest.raises(VectorsError, match=r"cannot read .*no\.txt"):
            read_vectors(tmp_path / "x.npy", tmp_path / "no.txt")
        with pytest.raises(VectorsError, match=r"no manifest\.jsonl"):
            read_vectors(tmp_path)
        (tmp_path / "paths.txt").write_text("a\n")
        for name in ("no.npy", "no.jsonl"):
            with pytest.raises(VectorsError, match="No such file"):
                read_vectors(tmp_path / name, tmp_path / "paths.txt" if name == "no.npy" else None)
        out = embedded(tmp_path, "matrix")
        with pytest.raises(VectorsError, match="which has a manifest"):
            read_vectors(out / "embeddings.npy")
        with pytest.raises(VectorsError, match="leave out the file of paths"):
            read_vectors(out, tmp_path / "paths.txt")

    def test_directories_that_lost_something(self, tmp_path: Path) -> None:
        out = embedded(tmp_path / "1", "npy")
        (out / "b" / "a.wav.npy").unlink()
        with pytest.raises(VectorsError, match=r"cannot read .*a\.wav\.npy"):
            read_vectors(out)
        out = embedded(tmp_path / "2", "matrix")
        np.save(out / "embeddings.npy", np.ones((2, SIZE), np.float32))
        with pytest.raises(VectorsError, match="has 2 rows"):
            read_vectors(out)
        np.save(out / "embeddings.npy", np.ones((4, 2), np.float32))
        with pytest.raises(VectorsError, match="its manifest says 3"):
            read_vectors(out)
        (out / "manifest.jsonl").write_text("{}\n")
        with pytest.raises(OutputError, match="not a manifest"):
            read_vectors(out)

    @pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl"])
    def test_while_a_run_lasts_or_once_it_was_killed(self, tmp_path: Path, format: Any) -> None:
        identity = ModelIdentity("m", "f" * 64, SIZE)
        output = open_output(
            tmp_path / "out", format=format, dtype="float32", timestamps=None, model=identity, overwrite=False
        )
        fill(output, tmp_path / "songs")
        np.testing.assert_array_equal(read_vectors(tmp_path / "out").matrix, [vector(number) for number in range(4)])
        output.close()


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)


class TestMatching:
    @quick
    @given(st.lists(names, unique=True, max_size=8))
    def test_every_key_finds_itself(self, keys: list[str]) -> None:
        assert match(made(keys), keys) == list(range(len(keys)))
        assert match(made(keys), keys[::-1]) == list(range(len(keys)))[::-1]

    @quick
    @given(st.lists(names, unique=True, max_size=8), st.sampled_from(["/data/", "x/", "./", "./x/../"]))
    def test_a_folder_in_front_does_not_matter(self, keys: list[str], front: str) -> None:
        whole = [f"{front}{key}" for key in keys]
        ambiguous = any(one != two and f"/{one}".endswith(f"/{two}") for one in keys for two in keys)
        if not ambiguous:
            assert match(made(whole), keys) == list(range(len(keys)))
            assert match(made(keys), whole) == list(range(len(keys)))

    @quick
    @given(st.lists(names, max_size=8), st.lists(names, unique=True, max_size=8))
    def test_what_is_found_is_the_end_of_the_other(self, vectors: list[str], keys: list[str]) -> None:
        try:
            rows = match(made(vectors), keys)
        except VectorsError as error:
            assert "could be" in error.message
            return
        for key, row in zip(keys, rows, strict=True):
            fits = [n for n, v in enumerate(vectors) if f"/{v}".endswith(f"/{key}") or f"/{key}".endswith(f"/{v}")]
            assert (row in fits) if row is not None else not set(fits) - set(rows)
        taken = [row for row in rows if row is not None]
        assert len(set(taken)) == len(taken)

    def test_whole_components_only(self) -> None:
        assert match(made(["xa.wav"]), ["a.wav"]) == [None]
        assert match(made(["x/a.wav"]), ["y/a.wav"]) == [None]

    def test_equal_keys_go_first(self) -> None:
        assert match(made(["a.wav", "b/a.wav"]), ["b/a.wav", "a.wav"]) == [1, 0]
        assert match(made(["a.wav"]), ["a.wav", "b/a.wav"]) == [0, None]

    def test_the_place_on_disk_tells_apart_what_the_key_cannot(self) -> None:
        vectors = Vectors(["a.wav"], ["/data/one/a.wav"], np.ones((1, 2), np.float32), "out")
        assert match(vectors, ["one/a.wav", "two/a.wav"]) == [0, None]

    def test_stretches(self) -> None:
        vectors = made(["/d/a.wav#t=1.50,2", "/d/a.wav#t=0,1.0", "/d/a.wav", "/d/a.wav#t=2"])
        keys = ["a.wav", "a.wav#t=0,1", "a.wav#t=1.5,2", "a.wav#t=2", "a.wav#t=10,20", "a.wav#t=1,2"]
        assert match(vectors, keys) == [2, 1, 0, 3, None, None]
        assert match(made(["a#t=0,10"]), ["a#t=,10", "a#t=0,1"]) == [0, None]

    @pytest.mark.parametrize(
        ("vectors", "keys", "words"),
        [
            (["a.wav", "a.wav"], ["a.wav"], ["a.wav (row 0)", "a.wav (row 1)"]),
            (["x/a.wav", "y/a.wav"], ["a.wav"], ["x/a.wav (row 0)", "y/a.wav (row 1)"]),
            (["a.wav"], ["x/a.wav", "y/a.wav"], ["x/a.wav", "y/a.wav"]),
        ],
    )
    def test_doubt_is_an_error(self, vectors: list[str], keys: list[str], words: list[str]) -> None:
        with pytest.raises(VectorsError) as caught:
            match(made(vectors), keys)
        assert all(word in str(caught.value) for word in [*words, "x.npy"])
        assert caught.value.hint
