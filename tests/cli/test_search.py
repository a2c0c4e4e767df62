"""``poolembed search`` as a user meets it: every format to the letter, every way to ask, everything that goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import GOOD, Cli, manifest
from tests.conftest import noise
from tests.encoders import encode
from tests.search.copies import direction, embedded

SONGS = {"a.wav": 0.0, "b/c d.flac": 10.0, "b/e.mp3": 30.0, "ü, [x].wav": 60.0}


@pytest.fixture
def library(tmp_path: Path, environment: None) -> Path:
    """``embeddings`` in the working directory: four songs, of which one is there and has tags."""
    file = tmp_path / "work" / "songs" / "b" / "c d.flac"
    file.parent.mkdir(parents=True)
    with soundfile.SoundFile(file, "w", 8000, 1) as song:
        song.title, song.artist = "Für [b]Elise[/b]", "L., van"
        song.write(np.zeros(20_000))
    out = embedded(tmp_path / "work", SONGS, "npy").rename(tmp_path / "work" / "embeddings")
    return out.parent


def test_silent_songs_have_no_neighbours_and_the_others_have_theirs(cli: Cli, tmp_path: Path) -> None:
    made = embedded(tmp_path, {"a": 10.0, "b": 20.0, "c": 90.0, "silent": 225.0})
    done = cli("search", "--all", str(made), "-k2", "--format", "csv")
    assert done.out.count(b"\n") == 7
    assert done.err == "note: songs without any neighbour, as silent ones are: 1\n"


class TestFormats:
    """From a.wav, with cosines of 10, 30 and 60 degrees."""

    def test_table(self, cli: Cli, library: Path) -> None:
        result = cli("search", "a.wav")
        assert result.code == 0
        assert result.out.decode() == (
            "1  0.9848  L., van - Für [b]Elise[/b]  b/c d.flac\n"
            "2  0.8660                              b/e.mp3\n"
            "3  0.5000                              ü, [x].wav\n"
        )
        assert result.err == "note: asked for 10 neighbours, and there are 3\n"

    def test_table_of_several(self, cli: Cli, library: Path) -> None:
        result = cli("search", "b/e.mp3", "songs/a.wav", "-k1")
        assert result.out.decode() == (
            "b/e.mp3\n1  0.9397  L., van - Für [b]Elise[/b]  b/c d.flac\n\n"
            "songs/a.wav\n1  0.9848  L., van - Für [b]Elise[/b]  b/c d.flac\n\n"
        )
        assert not result.err

    def test_jsonl(self, cli: Cli, library: Path) -> None:
        result = cli("search", "a.wav", "b/e.mp3", "-k", "2", "--format", "jsonl")
        songs = library / "songs"
        first = {"path": str(songs / "b/c d.flac"), "key": "b/c d.flac"}
        first |= {"title": "Für [b]Elise[/b]", "artist": "L., van"}
        second = {"path": str(songs / "b/e.mp3"), "key": "b/e.mp3", "title": None, "artist": None}
        third = {"path": str(songs / "a.wav"), "key": "a.wav", "title": None, "artist": None}
        assert result.lines == [
            {
                "query": "a.wav",
                "neighbours": [{"rank": 1, "cosine": 0.984808, **first}, {"rank": 2, "cosine": 0.866025, **second}],
            },
            {
                "query": "b/e.mp3",
                "neighbours": [{"rank": 1, "cosine": 0.939693, **first}, {"rank": 2, "cosine": 0.866025, **third}],
            },
        ]
        assert result.out.isascii()

    def test_csv(self, cli: Cli, library: Path) -> None:
        result = cli("search", "a.wav", "--top=3", "--format", "csv")
        songs = library / "songs"
        assert result.out.decode() == (
            "query,rank,cosine,path,key,title,artist\n"
            f'a.wav,1,0.984808,{songs}/b/c d.flac,b/c d.flac,Für [b]Elise[/b],"L., van"\n'
            f"a.wav,2,0.866025,{songs}/b/e.mp3,b/e.mp3,,\n"
            f'a.wav,3,0.5,"{songs}/ü, [x].wav","ü, [x].wav",,\n'
        )

    def test_paths(self, cli: Cli, library: Path) -> None:
        songs = library / "songs"
        result = cli("search", "a.wav", "b/e.mp3", "-k", "2", "--format", "paths")
        assert result.out.decode() == f"{songs}/b/c d.flac\n{songs}/b/e.mp3\n{songs}/a.wav\n"
        result = cli("search", "a.wav", "-k", "2", "--format", "paths", "-0")
        assert result.out.decode() == f"{songs}/b/c d.flac\0{songs}/b/e.mp3\0"

    def test_m3u(self, cli: Cli, library: Path) -> None:
        songs = library / "songs"
        result = cli("search", "a.wav", "b/e.mp3", "-k", "2", "--format", "m3u")
        assert result.out.decode() == (
            "#EXTM3U\n"
            f"#EXTINF:60,L., van - Für [b]Elise[/b]\n{songs}/b/c d.flac\n"
            f"#EXTINF:60,e\n{songs}/b/e.mp3\n"
            f"#EXTINF:60,a\n{songs}/a.wav\n"
        )

    @pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl"])
    def test_lengths_in_a_playlist_are_those_of_the_manifest(
        self, cli: Cli, tmp_path: Path, environment: None, format: Literal["npy", "matrix", "parquet", "jsonl"]
    ) -> None:
        seconds = {"a.wav": (0, 1.0), "b.wav": (1, 24_348.4), "c.wav": (2, 60.5), "d.wav": (3, 0.4)}
        embedded(tmp_path / "work", seconds, format)
        places = ["out"] if format == "npy" else ["out", f"out/embeddings.{'npy' if format == 'matrix' else format}"]
        if format in ("parquet", "jsonl"):  # on its own, a table knows them too
            shutil.copy(f"out/embeddings.{format}", f"alone.{format}")
            places.append(f"alone.{format}")
        for place in places:
            lines = cli("search", "songs/a.wav", "--in", place, "--format", "m3u").out.decode().splitlines()
            assert lines[1::2] == ["#EXTINF:24348,b", "#EXTINF:60,c", "#EXTINF:0,d"]

    def test_lengths_of_an_index_are_those_of_its_collection(self, cli: Cli, tmp_path: Path, environment: None) -> None:
        pytest.importorskip("usearch")
        embedded(tmp_path / "work", {"a.wav": (0, 1.0), "b.wav": (1, 61.0), "c.wav": (2, 62.0)})
        assert cli("index", "out", "-o", "x.index").code == 0
        asked = ("search", "songs/a.wav", "--in", "x.index", "--format", "m3u")
        assert cli(*asked).out.decode().splitlines()[1::2] == ["#EXTINF:61,b", "#EXTINF:62,c"]
        shutil.rmtree("out")
        assert cli(*asked).out.decode().splitlines()[1::2] == ["#EXTINF:-1,b", "#EXTINF:-1,c"]

    def test_names_that_are_not_unicode(self, cli: Cli, tmp_path: Path, environment: None) -> None:
        embedded(tmp_path / "work", {"a.wav": 0.0, os.fsdecode(b"\xff\x1b\n.wav"): 1.0})
        odd = os.fsencode(tmp_path / "work" / "songs") + b"/\xff\x1b\n.wav"
        assert cli("search", "a.wav", "--in", "out", "--format", "paths", "-0").out == odd + b"\0"
        assert cli("search", "a.wav", "--in", "out").out == b"1  0.9998  \\xff\\x1b\\n.wav\n"
        assert cli("search", "a.wav", "--in", "out", "--format", "jsonl").lines[0]["neighbours"][0]["path"] == (
            os.fsdecode(odd)
        )
        playlist = cli("search", "a.wav", "--in", "out", "--format", "m3u")
        assert playlist.out == b"#EXTM3U\n"
        assert "has a line break in its name" in playlist.err


class TestAsking:
    def test_every_song(self, cli: Cli, library: Path) -> None:
        result = cli("search", "embeddings/", "--all", "-k", "1", "--format", "jsonl")
        songs = library / "songs"
        found = {line["query"]: [each["key"] for each in line["neighbours"]] for line in result.lines}
        assert found == {
            str(songs / "a.wav"): ["b/c d.flac"],
            str(songs / "b/c d.flac"): ["a.wav"],
            str(songs / "b/e.mp3"): ["b/c d.flac"],
            str(songs / "ü, [x].wav"): ["b/e.mp3"],
        }
        assert cli("search", "--all", "-k1", "--format", "jsonl").out == result.out
        assert cli("search", "--all", "--in", "embeddings", "-k1", "--format", "jsonl").out == result.out

    def test_the_mean(self, cli: Cli, library: Path) -> None:
        result = cli("search", "a.wav", "ü, [x].wav", "--mean", "--format", "jsonl")
        assert [line["query"] for line in result.lines] == ["a.wav + ü, [x].wav"]
        assert [each["key"] for each in result.lines[0]["neighbours"]] == ["b/e.mp3", "b/c d.flac"]
        assert result.lines[0]["neighbours"][0]["cosine"] == 1

    def test_the_query_itself(self, cli: Cli, library: Path) -> None:
        for name in ("b/c d.flac", "./songs/../songs/b/c d.flac", str(library / "songs" / "b" / "c d.flac")):
            assert b"c d.flac" not in cli("search", name, "--format", "csv").out.replace(name.encode() + b",", b"")
        result = cli("search", "b/c d.flac", "-k1", "--with-query", "--format", "jsonl")
        assert [(each["key"], each["cosine"]) for each in result.lines[0]["neighbours"]] == [("b/c d.flac", 1)]

    def test_filters(self, cli: Cli, library: Path) -> None:
        def keys(*arguments: str) -> list[str]:
            (line,) = cli("search", "a.wav", "--format", "jsonl", *arguments).lines
            return [each["key"] for each in line["neighbours"]]

        assert keys("--filter", "b/*") == keys("--include", "b/*") == ["b/c d.flac", "b/e.mp3"]
        assert keys("--filter", "*.mp3", "--filter", "*.flac", "--exclude", "* *") == ["b/e.mp3"]
        assert keys("--exclude", f"{library}/songs/b/*") == ["ü, [x].wav"]
        result = cli("search", "a.wav", "--filter", "*.opus")
        assert result.code == 1
        assert "none of the 4 songs of embeddings is left by the filters" in result.err

    @pytest.mark.parametrize("format", ["matrix", "parquet", "jsonl"])
    def test_whatever_embed_writes(self, cli: Cli, tmp_path: Path, environment: None, format: str) -> None:
        embedded(tmp_path / "work", SONGS, format)  # type: ignore[arg-type]
        expected = "".join(f"{tmp_path}/work/songs/{name}\n" for name in list(SONGS)[1:])
        for place in ("out", f"out/embeddings.{'npy' if format == 'matrix' else format}"):
            assert cli("search", "a.wav", "--in", place, "--format", "paths").out.decode() == expected

    def test_bare_matrices(self, cli: Cli, tmp_path: Path, environment: None) -> None:
        np.save("x.npy", np.array([direction(angle) for angle in (0, 50, 20)]))
        np.save("query.npy", direction(21))
        assert cli("search", "query.npy", "--in", "x.npy").out == b"1  0.9998  2\n2  0.9336  0\n3  0.8746  1\n"
        assert cli("search", "0", "--in", "x.npy").out == b"1  0.9397  2\n2  0.6428  1\n"
        Path("paths.txt").write_text("a.mp3\nb.mp3\n/m/c.mp3\n")
        named = ("search", "a.mp3", "--in", "x.npy", "--paths", "paths.txt", "--format")
        assert cli(*named, "paths").out == b"/m/c.mp3\nb.mp3\n"
        playlist = cli(*named, "m3u").out.decode().splitlines()
        assert playlist[2::2] == ["/m/c.mp3", f"{tmp_path}/work/b.mp3"]
        assert playlist[1::2] == ["#EXTINF:-1,c", "#EXTINF:-1,b"]  # nobody decoded them
        nameless = cli("search", "0", "--in", "x.npy", "--format", "m3u")
        assert (nameless.code, "does not name its songs" in nameless.err) == (2, True)

    def test_fewer_numbers(self, cli: Cli, tmp_path: Path, environment: None) -> None:
        np.save("x.npy", [[1.0, 0.0, 9.0], [1.0, 1.0, -9.0], [0.0, 1.0, 9.0]])
        np.save("long.npy", [0.9, 1, 5])
        np.save("short.npy", [0.9, 1])
        expected = b"1  0.9986  1\n2  0.7433  2\n3  0.6690  0\n"
        assert cli("search", "long.npy", "--in", "x.npy", "--dim", "2").out == expected
        assert cli("search", "short.npy", "--in", "x.npy", "--dim", "2").out == expected
        assert cli("search", "1", "--in", "x.npy", "--dim", "2", "-k1").out == b"1  0.7071  0\n"
        assert cli("search", "short.npy", "--in", "x.npy").code == 1
        refused = cli("search", "long.npy", "--in", "x.npy", "--dim", "4")
        assert (refused.code, "have 3 numbers" in refused.err) == (2, True)

    def test_standard_input(self, cli: Cli, library: Path) -> None:
        line = json.dumps({"path": "songs/a.wav", "embedding": direction(31)}).encode()
        result = cli("search", "-", "-k1", "--format", "jsonl", stdin=line + b"\n")
        assert [each["key"] for each in result.lines[0]["neighbours"]] == ["b/e.mp3"]
        assert cli("search", "-", "-k1", "--with-query", "--format", "paths", stdin=line).code == 0


class TestAudio:
    def test_songs_that_the_collection_lacks(self, cli: Cli, songs: Path, tmp_path: Path) -> None:
        """A copy elsewhere is embedded to the same vector, and finds what it is a copy of."""
        assert cli("embed", songs, "-o", "out", "-q").code == 3
        shutil.copy(songs / "b.flac", "new.flac")
        shutil.copy(songs / "d.mp3", "new.mp3")
        result = cli("search", "new.flac", "sub/a.wav", "new.mp3", "--in", "out", "-k", "9", "--format", "jsonl")
        assert result.code == 0
        assert [line["query"] for line in result.lines] == ["new.flac", "sub/a.wav", "new.mp3"]
        of_copy, of_song, of_other = ([each["key"] for each in line["neighbours"]] for line in result.lines)
        assert (of_copy[0], of_other[0]) == ("b.flac", "d.mp3")
        assert sorted(of_copy) == sorted(GOOD)
        assert sorted(of_song) == sorted(set(GOOD) - {"sub/a.wav"})
        assert "2 songs to embed" in result.err
        neighbours = {
            line["query"]: line["neighbours"]
            for line in cli("search", "--in", "out", "--all", "-k9", "--format", "jsonl").lines
        }
        assert result.lines[0]["neighbours"][1:] == [
            {**each, "rank": each["rank"] + 1} for each in neighbours[str(songs / "b.flac")]
        ]

    def test_a_song_of_the_collection_is_not_decoded(self, cli: Cli, songs: Path, tmp_path: Path) -> None:
        shutil.copytree(songs, tmp_path / "work" / "songs")
        cli("embed", "songs", "-o", "out", "-q")
        expected = cli("search", "songs/b.flac", "--in", "out").out
        (tmp_path / "work" / "songs" / "b.flac").write_bytes(b"no music any more")
        assert cli("search", "songs/b.flac", "--in", "out").out == expected
        (tmp_path / "work" / "songs" / "b.flac").unlink()
        assert cli("search", "songs/b.flac", "--in", "out").out == expected

    def test_queries_that_fail(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs, "-o", "out", "-q")
        bad = songs / "broken.mp3"
        result = cli("search", bad, "nowhere.mp3", "a.wav", "--in", "out", "-k1", "--format", "jsonl")
        assert result.code == 3
        assert [line["query"] for line in result.lines] == ["a.wav"]
        assert f"{bad}: not audio" in result.err
        assert "nowhere.mp3: no such file, and no song of out" in result.err
        result = cli("search", bad, "--in", "out", "--format", "csv")
        assert (result.code, result.out) == (1, b"")
        assert f"{bad}: not audio" in result.err

    def test_another_model(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs / "a.wav", songs / "c.ogg", "-o", "out", "-q")
        cli("embed", songs / "b.flac", "-o", "strange", "-q", "--model", "other")
        ours, theirs = (manifest(Path(name))[0]["fingerprint"][:8] for name in ("out", "strange"))
        (vector,) = Path("strange").rglob("*.npy")
        for arguments in ((str(songs / "b.flac"), "--model", "other"), (str(vector),)):
            result = cli("search", *arguments, "--in", "out")
            assert (result.code, result.out) == (1, b"")
            assert f"of the model other ({theirs})" in result.err
            assert f"out of toy ({ours})" in result.err
        assert cli("search", songs / "b.flac", "--in", "out", "--model", "toy").code == 0

    def test_a_model_that_is_not_at_hand(self, cli: Cli, songs: Path, models: Path) -> None:
        cli("embed", songs / "a.wav", "-o", "out", "-q")
        path = Path("out/manifest.jsonl")
        path.write_text(path.read_text().replace('"toy"', '"gone"'))
        result = cli("search", songs / "b.flac", "--in", "out")
        assert result.code == 1
        assert "out is of the model gone" in result.err
        assert "--model gives its path" in result.err
        assert cli("search", songs / "b.flac", "--in", "out", "--model", models / "toy").code == 0

    def test_vectors_of_no_known_model(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs, "-o", "out", "-q", "--format", "matrix")
        shutil.move("out/embeddings.npy", "x.npy")
        result = cli("search", songs / "b.flac", "--in", "x.npy")
        assert (result.code, "--model names it" in result.err) == (2, True)
        result = cli("search", songs / "b.flac", "--in", "x.npy", "--model", "toy", "-k1")
        assert result.out == b"1  1.0000  1\n"

    def test_a_playlist_that_plays_from_anywhere(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs, "-o", "out", "-q")
        result = cli("search", songs / "a.wav", songs / "c.ogg", "--mean", "--in", "out", "--format", "m3u")
        head, *lines = result.out.decode().splitlines()
        assert head == "#EXTM3U"
        assert sorted(lines[1::2]) == sorted(str(songs / name) for name in GOOD if name not in ("a.wav", "c.ogg"))
        for entry, path in zip(lines[::2], lines[1::2], strict=True):
            seconds, name = entry.removeprefix("#EXTINF:").split(",")
            assert name == Path(path).stem
            assert abs(int(seconds) - soundfile.info(path).duration) <= 1  # encoders pad

    def test_what_tag_readers_guess_is_not_in_a_playlist(self, cli: Cli, tmp_path: Path) -> None:
        """Two MP3s in one, of which many tag readers see the first; no reader has WavPack's."""
        samples = np.concatenate([noise(4 * 44_100, seed) for seed in range(6)])
        path = encode(tmp_path / "songs" / "a.mp3", "mp3.mp3", samples[: 4 * 44_100, None], 44_100)
        path.write_bytes(path.read_bytes() + encode(tmp_path / "b", "mp3.mp3", samples[:, None], 44_100).read_bytes())
        encode(tmp_path / "songs" / "b.wv", "wavpack.wv", samples[: 7 * 44_100, None], 44_100)
        encode(tmp_path / "songs" / "c.wav", "pcm.wav", samples[-44_100:, None], 44_100)
        cli("embed", tmp_path / "songs", "-o", "out")
        lines = cli("search", tmp_path / "songs" / "c.wav", "--in", "out", "--format", "m3u").out.decode().splitlines()
        assert sorted(lines[1::2]) == ["#EXTINF:28,a", "#EXTINF:7,b"]

    def test_a_pipe(self, songs: Path, cli: Cli) -> None:
        cli("embed", songs, "-o", "out", "-q")
        embedding = cli("embed", songs / "sub", "-o", "-", "-q")
        result = cli("search", "-", "--in", "out/", "-k", "3", "--format", "jsonl", stdin=embedding.out)
        assert result.code == 0
        assert [line["query"] for line in result.lines] == [str(songs / "sub/a.wav"), str(songs / "sub/deeper/e.aiff")]
        asked = cli("search", songs / "sub/a.wav", "--in", "out/", "-k", "3", "--format", "jsonl")
        assert result.lines[0] == asked.lines[0]


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "nothing to search for"),
            (["-", "-"], "standard input can be read once"),
            (["a", "b", "--all"], "every song of one collection"),
            (["embeddings", "--in", "embeddings", "--all"], "every song of one collection"),
            (["--all", "--mean"], "choose one of the two"),
            (["a.wav", "-0"], "-0 belongs to --format paths"),
            (["a.wav", "-k", "0"], "-k"),
            (["a.wav", "--dim", "0"], "--dim"),
            (["a.wav", "--format", "xml"], "--format"),
        ],
    )
    def test_usage(self, cli: Cli, library: Path, arguments: list[str], words: str) -> None:
        result = cli("search", *arguments)
        assert (result.code, result.out) == (2, b"")
        assert words in result.err

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, "no collection x.npy: no such file"),
            (np.ones((0, 2)), "no vectors in x.npy"),
            (
                np.array([[1, 2], [np.nan, 0], [3, 4]]),
                "1 of the 3 vectors in x.npy have NaN or infinite numbers: 1 (row 1)",
            ),
            (np.array([[1, 2], [0, 0]]), "1 of the 2 vectors in x.npy have zeros alone: 1 (row 1)"),
            (np.ones((2, 2), object), "x.npy holds pickled objects"),
            (np.ones(2), "x.npy must hold numbers (N, D)"),
            (b"\x93NUMPY", "x.npy is not an .npy file, or is damaged"),
        ],
    )
    def test_collections(
        self,
        cli: Cli,
        environment: None,
        content: Any,
        words: str,
    ) -> None:
        np.save("query.npy", [1.0, 2])
        if isinstance(content, bytes):
            Path("x.npy").write_bytes(content)
        elif content is not None:
            np.save("x.npy", content, allow_pickle=True)
        result = cli("search", "query.npy", "--in", "x.npy")
        assert (result.code, result.out) == (1, b"")
        assert result.err.startswith(f"poolembed: {words}")

    def test_no_collection_at_all(self, cli: Cli) -> None:
        result = cli("search", "a.mp3")
        assert result.code == 1
        assert "no collection embeddings" in result.err
        assert "poolembed embed" in result.err

    def test_a_truncated_matrix(self, cli: Cli, tmp_path: Path, environment: None) -> None:
        out = embedded(tmp_path / "work", SONGS)
        os.truncate(out / "embeddings.npy", 140)
        result = cli("search", "a.wav", "--in", "out")
        assert result.code == 1
        assert "embeddings.npy is cut short" in result.err

    def test_a_query_with_a_nan(self, cli: Cli, library: Path) -> None:
        np.save("nan.npy", [np.nan, 1])
        result = cli("search", "nan.npy", "a.wav", "-k1")
        assert result.code == 3
        assert "nan.npy: NaN or infinite numbers" in result.err
        assert result.out


def test_torch_is_left_alone_where_nothing_is_embedded(library: Path) -> None:
    code = (
        "import sys; sys.argv = ['poolembed', 'search', 'a.wav', '-k1']\n"
        "from poolembed.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'sklearn', 'pyarrow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
