"""``poolembed embed``: every form of it, what it says, how it ends, and what it does the second time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from poolembed.embed import model as model_module
from poolembed.embed.outputs import open_output
from poolembed.identity import ModelIdentity
from tests.cli.conftest import BAD, GOOD, Cli, files, manifest, npys
from tests.conftest import RATE, noise


def _folder_of(name: str) -> list[Path]:
    """A folder in which there is one file alone, and no audio."""
    Path("alone").mkdir()
    Path("alone", name).write_bytes(b"?")
    return [Path("alone")]


LOADED = """
import sys
from poolembed.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
print([name for name in ("torch", "av", "soundfile", "soxr", "safetensors") if name in sys.modules])
"""

KEPT = sorted(f"{name}.npy" for name in GOOD)


class TestForms:
    def test_a_directory(self, cli: Cli, songs: Path) -> None:
        done = cli("embed", songs)
        assert done.code == 3  # done, but some files failed
        assert done.out == b""
        assert sorted(npys(Path("embeddings"))) == KEPT
        for vector in npys(Path("embeddings")).values():
            assert vector.shape == (8,)
            assert vector.dtype == np.float32
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)

    def test_directories_files_and_a_list(self, cli: Cli, songs: Path, tmp_path: Path) -> None:
        (tmp_path / "more.txt").write_text(f"{songs}/b.flac\n{songs}/c.ogg\n\n")
        done = cli(
            "embed", songs / "sub" / "deeper", songs / "a.wav", "-o", "out", "--format", "matrix",
            "--files-from", tmp_path / "more.txt",
        )  # fmt: skip
        assert done.code == 0
        matrix = np.load("out/embeddings.npy", mmap_mode="r")
        assert matrix.shape == (4, 8)
        rows = [record["path"] for record in manifest(Path("out"))[1:]]
        assert [Path(row).name for row in rows] == ["e.aiff", "a.wav", "b.flac", "c.ogg"]
        for row, path in zip(matrix, rows, strict=True):
            cli("embed", path, "-o", "alone", "--overwrite")
            (alone,) = npys(Path("alone")).values()
            np.testing.assert_allclose(row, alone, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(("separator", "options"), [(b"\n", []), (b"\0", ["-0"]), (b"\0", ["--null"])])
    def test_paths_in_and_lines_out(self, cli: Cli, songs: Path, separator: bytes, options: list[str]) -> None:
        names = [os.fsencode(songs / name) for name in GOOD]
        done = cli("embed", "-", "-o", "-", *options, stdin=separator.join(names) + separator)
        assert done.code == 0
        assert [line["path"] for line in done.lines] == [os.fsdecode(name) for name in names]
        assert not Path("-").exists()
        cli("embed", songs)
        for line, name in zip(done.lines, GOOD, strict=True):
            assert line.keys() >= {"path", "embedding", "duration"}
            kept = np.load(f"embeddings/{name}.npy")
            np.testing.assert_array_equal(np.float32(line["embedding"]), kept)

    def test_lists_and_arguments_keep_their_places(self, cli: Cli, songs: Path, tmp_path: Path) -> None:
        (tmp_path / "list").write_text(f"{songs}/c.ogg\n")
        done = cli(
            "embed", songs / "d.mp3", "-", songs / "a.wav", "--files-from", tmp_path / "list", "-o", "-",
            stdin=os.fsencode(f"{songs}/b.flac\n"),
        )  # fmt: skip
        assert [Path(line["path"]).name for line in done.lines] == ["d.mp3", "b.flac", "a.wav", "c.ogg"]

    @pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl"])
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_formats_hold_the_same(self, cli: Cli, songs: Path, format: str, dtype: str) -> None:
        assert cli("embed", songs, "-o", "out", "--format", format, "--dtype", dtype, "--timestamps", "0.5").code == 3
        assert cli("embed", songs, "-o", "plain").code == 3
        expected = npys(Path("plain"))
        out = Path("out")
        records = [record for record in manifest(out)[1:] if record["status"] == "ok"]
        if format == "npy":
            found = npys(out)
            for name in GOOD:
                with np.load(out / f"{name}.timestamps.npz") as segments:
                    assert segments["embeddings"].shape == (len(segments["times"]), 8)
        elif format == "matrix":
            matrix = np.load(out / "embeddings.npy", mmap_mode="r")
            found = {f"{record['key']}.npy": matrix[record["row"]] for record in records}
        elif format == "parquet":
            parquet = pytest.importorskip("pyarrow.parquet")
            table = parquet.read_table(out / "embeddings.parquet").to_pylist()
            found = {f"{record['key']}.npy": np.array(table[record["row"]]["embedding"]) for record in records}
        else:
            lines = [json.loads(line) for line in (out / "embeddings.jsonl").read_bytes().splitlines()]
            found = {f"{record['key']}.npy": np.array(lines[record["row"]]["embedding"]) for record in records}
        assert sorted(found) == KEPT
        for name in KEPT:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6 if dtype == "float32" else 1e-3)

    def test_home_and_the_working_directory(self, cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copytree(songs, "here/songs")
        monkeypatch.chdir("here")
        assert cli("embed", "songs", "-o", "one").code == 3
        assert cli("embed", ".", "-o", "two").code == 3
        assert sorted(npys(Path("one"))) == KEPT
        assert sorted(npys(Path("two"))) == [f"songs/{name}" for name in KEPT]

    def test_output_inside_input(self, cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copytree(songs, "songs")
        monkeypatch.chdir("songs")
        assert cli("embed", ".").code == 3
        before = files(Path("embeddings"))
        assert sorted(before) == KEPT
        again = cli("embed", ".", "--json")
        assert (again.json["embedded"], again.json["unchanged"]) == (0, len(GOOD))
        assert files(Path("embeddings")) == before

    def test_one_path_twice(self, cli: Cli, songs: Path) -> None:
        done = cli("embed", songs, songs / "a.wav", songs, f"{songs}/./a.wav", "-o", "out", "--json")
        assert done.json["embedded"] == len(GOOD)
        assert done.json["found"] == len(GOOD) + len(BAD)

    @pytest.mark.parametrize(
        "options", [["--batch-size", "1"], ["--batch-size", "64", "--workers", "4"], ["--workers", "1"]]
    )
    def test_batch_and_workers_do_not_matter(self, cli: Cli, songs: Path, options: list[str]) -> None:
        cli("embed", songs, "-o", "plain")
        cli("embed", songs, "-o", "tuned", *options)
        plain, tuned = npys(Path("plain")), npys(Path("tuned"))
        assert plain.keys() == tuned.keys()
        for name in plain:
            np.testing.assert_allclose(tuned[name], plain[name], rtol=0, atol=1e-5)

    def test_precision(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs, "-o", "full", "--precision", "fp32")
        cli("embed", songs, "-o", "half", "--precision", "bf16", "--device", "cpu")
        full, half = npys(Path("full")), npys(Path("half"))
        assert any(not np.array_equal(full[name], half[name]) for name in full)
        assert min(float(full[name] @ half[name]) for name in full) >= 0.999


class TestWords:
    def test_the_closing_table(self, cli: Cli, songs: Path) -> None:
        err = cli("embed", songs).err
        assert "6 songs" in err
        assert "2 files" in err
        assert "embeddings" in err
        assert "toy" in err
        for name in BAD:
            assert name in err
        assert "empty file" in err
        assert ".hidden" not in err
        assert "notes.txt" not in err

    def test_what_was_passed_over(self, cli: Cli, songs: Path) -> None:
        shutil.copytree(songs, "some")
        assert "passed over" not in cli("embed", "some").err  # covers and notes are nobody's songs
        for name in ("x.xyz", "sub/y.XYZ", "z.abc"):
            Path("some", name).write_bytes(b"?")
        done = cli("embed", "some", "--json")
        assert "passed over  3 files whose suffix is not known: .xyz 2, .abc 1\n" in done.err
        assert all(line == line.rstrip() for line in done.err.splitlines())
        assert done.json["passed_over"] == {".xyz": 2, ".abc": 1}
        assert "passed over" not in cli("embed", "some", "-q").err
        assert "passed over 1 file whose suffix is not known: .abc 1" in cli("embed", *_folder_of("z.abc")).err

    def test_quiet_says_only_what_failed(self, cli: Cli, songs: Path) -> None:
        done = cli("embed", songs / "a.wav", songs / "b.flac", "--quiet")
        assert (done.code, done.out, done.err) == (0, b"", "")
        done = cli("embed", songs, "-q", "-o", "out")
        assert done.code == 3
        assert "broken.mp3" in done.err
        assert "real time" not in done.err

    def test_json(self, cli: Cli, songs: Path) -> None:
        done = cli("embed", songs, "--json")
        summary = done.json
        assert done.out.count(b"\n") == 1
        assert summary["found"] == len(GOOD) + len(BAD)
        assert summary["embedded"] == len(GOOD)
        assert summary["unchanged"] == 0
        assert summary["failed"] == len(BAD)
        assert {failure["path"] for failure in summary["failures"]} == {str(songs / name) for name in BAD}
        assert all(failure["reason"] for failure in summary["failures"])
        assert summary["interrupted"] is False
        seconds = sum((2000 + 3000 * number) / RATE for number in range(len(GOOD)))
        assert summary["audio_seconds"] == pytest.approx(seconds, rel=0.02)
        assert summary["elapsed_seconds"] > 0
        assert summary["output"] == "embeddings"
        assert (summary["model"], summary["embedding_size"], summary["device"]) == ("toy", 8, "cpu")
        assert summary["fingerprint"] == manifest(Path("embeddings"))[0]["fingerprint"]

    def test_quiet_json(self, cli: Cli, songs: Path) -> None:
        done = cli("embed", songs / "a.wav", "--quiet", "--json")
        assert done.json["embedded"] == 1
        assert done.err == ""

    def test_json_when_it_fails(self, cli: Cli) -> None:
        done = cli("embed", "nowhere", "--json")
        assert (done.code, done.out) == (1, b"")

    def test_reasons_are_in_the_manifest(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs)
        header, *records = manifest(Path("embeddings"))
        assert header["embedding_size"] == 8
        by_key = {record["key"]: record for record in records}
        assert sorted(by_key) == sorted([*GOOD, *BAD])
        for name in GOOD:
            assert (by_key[name]["status"], by_key[name]["output"]) == ("ok", f"{name}.npy")
            assert by_key[name]["size"] == (songs / name).stat().st_size
        for name in BAD:
            assert by_key[name]["status"] == "failed"
            assert by_key[name]["reason"]

    def test_encodings_are_in_the_manifest(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs)
        records = {record["key"]: record for record in manifest(Path("embeddings"))[1:]}
        assert {key: (record.get("codec"), record.get("lossless")) for key, record in records.items()} == {
            "a.wav": ("pcm_s16le", True),
            "b.flac": ("flac", True),
            "c.ogg": ("vorbis", False),
            "d.mp3": ("mp3", False),
            "sub/a.wav": ("pcm_s16le", True),
            "sub/deeper/e.aiff": ("pcm_s16be", True),
            "broken.mp3": (None, None),
            "sub/empty.wav": (None, None),
        }
        mp3 = records["d.mp3"]
        assert (mp3["sample_rate"], mp3["channels"], records["b.flac"]["bits"]) == (RATE, 1, 16)
        in_all = mp3["size"] * 8e-3 / mp3["duration"]  # with the frame that holds no sound but the table
        assert 0.9 * in_all < mp3["bitrate"] < in_all

    def test_a_truncated_file_says_so(self, cli: Cli, songs: Path) -> None:
        data = (songs / "sub" / "a.wav").read_bytes()
        Path("cut.wav").write_bytes(data[: len(data) // 2])
        done = cli("embed", "cut.wav", "--json")
        assert done.code == 0
        assert done.json["embedded"] == 1
        assert "truncated" in done.json["notes"][0]["note"]
        assert "truncated" in done.err

    def test_names_stay_on_one_line(self, cli: Cli) -> None:
        names = [b"new\nline.wav", b"\xff\xfe.wav", b"\x1b[31mred.wav", b"[bold]markup[red].wav", b"[\\].wav"]
        for name in names:
            Path(os.fsdecode(name)).write_bytes(b"no music")
        done = cli("embed", ".", "-o", "out")
        assert done.code == 3
        listed = done.err[done.err.rindex("failed") :].splitlines()[1:]
        assert len(listed) == len(names)
        assert "\x1b" not in done.err
        assert "[bold]markup[red].wav" in done.err

    def test_many_failures_are_cut_short(self, cli: Cli) -> None:
        for number in range(50):
            Path(f"{number:02}.wav").write_bytes(b"no music")
        done = cli("embed", ".", "-o", "out")
        listed = done.err[done.err.rindex("failed") :].splitlines()[1:21]
        assert [line.split(":")[0].strip() for line in listed] == [f"./{number:02}.wav" for number in range(20)]
        assert "30 more" in done.err
        assert len(manifest(Path("out"))) == 51


class TestAgain:
    def test_nothing_is_done_twice(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs)
        before = {path: path.stat().st_mtime_ns for path in Path("embeddings").rglob("*.npy")}
        done = cli("embed", songs, "--json")
        assert done.code == 3  # the broken ones are tried again, and are broken still
        assert (done.json["embedded"], done.json["unchanged"], done.json["failed"]) == (0, len(GOOD), len(BAD))
        assert {path: path.stat().st_mtime_ns for path in Path("embeddings").rglob("*.npy")} == before
        assert "6 songs, embedded by an earlier run" in done.err

    @pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl"])
    def test_with_nothing_to_do_neither_torch_nor_a_model_is_loaded(self, cli: Cli, songs: Path, format: str) -> None:
        command = ["embed", str(songs / "sub" / "a.wav"), "-o", "out", "--format", format, "--model", "toy", "--json"]
        first = cli(*command).json
        assert (first["device"], first["precision"] is None, first["workers"] is None) == ("cpu", False, False)
        done = subprocess.run([sys.executable, "-c", LOADED, *command], check=True, capture_output=True, text=True)
        summary, loaded = done.stdout.splitlines()
        again = json.loads(summary)
        assert loaded == "[]"
        assert again.keys() == first.keys()
        assert (again["unchanged"], again["embedded"], again["device"]) == (1, 0, None)
        assert again["fingerprint"] == first["fingerprint"]

    def test_a_damaged_model_is_named_though_nothing_is_to_do(self, cli: Cli, songs: Path, models: Path) -> None:
        shutil.copytree(models / "toy", "mine")
        command = ["embed", songs / "a.wav", "--model", "./mine"]
        assert cli(*command).code == 0
        weights = Path("mine/model.safetensors")
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
        done = cli(*command)
        assert done.code == 1
        assert "SHA-256" in done.err

    def test_only_new_and_changed_songs(self, cli: Cli, songs: Path) -> None:
        shutil.copytree(songs, "songs")
        cli("embed", "songs")
        before = files(Path("embeddings"))
        shutil.copy("songs/sub/a.wav", "songs/new.wav")
        shutil.copy("songs/b.flac", "songs/a.wav")
        shutil.copy("songs/c.ogg", "songs/broken.mp3")
        Path("songs/d.mp3").unlink()
        done = cli("embed", "songs", "--json")
        assert (done.json["embedded"], done.json["unchanged"], done.json["failed"]) == (3, len(GOOD) - 2, 1)
        after = files(Path("embeddings"))
        assert after["new.wav.npy"] == before["sub/a.wav.npy"]
        assert after["a.wav.npy"] == before["b.flac.npy"] != before["a.wav.npy"]
        assert after["broken.mp3.npy"] == before["c.ogg.npy"]
        assert all(after[name] == before[name] for name in before if name != "a.wav.npy")

    @pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl"])
    def test_a_manifest_that_knows_no_encodings_goes_on(self, cli: Cli, songs: Path, format: str) -> None:
        cli("embed", songs, "-o", "out", "--format", format)
        lines = manifest(Path("out"))
        for line in lines[1:]:
            for name in ("codec", "lossless", "sample_rate", "channels", "bits", "bitrate"):
                line.pop(name, None)
        Path("out/manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        done = cli("embed", songs, "-o", "out", "--format", format, "--json")
        assert (done.json["embedded"], done.json["unchanged"]) == (0, len(GOOD))
        assert manifest(Path("out")) == lines
        soundfile.write("new.wav", noise(3000, 20), RATE)
        assert cli("embed", songs, "new.wav", "-o", "out", "--format", format, "--json").json["embedded"] == 1
        codecs = {line["key"]: line.get("codec") for line in manifest(Path("out"))[1:]}
        assert codecs == {**dict.fromkeys([*GOOD, *BAD]), "new.wav": "pcm_s16le"}

    def test_a_lost_vector_is_made_again(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs)
        before = files(Path("embeddings"))
        Path("embeddings/b.flac.npy").unlink()
        assert cli("embed", songs, "--json").json["embedded"] == 1
        assert files(Path("embeddings")) == before

    @pytest.mark.parametrize(
        "changed",
        [["--model", "other"], ["--dtype", "float16"], ["--format", "matrix"], ["--timestamps", "1"]],
        ids=lambda options: options[0],
    )
    def test_another_model_or_setting_is_refused_with_the_way_out(
        self, cli: Cli, songs: Path, changed: list[str]
    ) -> None:
        cli("embed", songs)
        before = files(Path("embeddings"))
        done = cli("embed", songs, *changed)
        assert done.code == 1
        assert "--overwrite" in done.err
        assert "-o" in done.err
        assert files(Path("embeddings")) == before
        assert cli("embed", songs, *changed, "-o", "another").code == 3
        assert cli("embed", songs, *changed, "--overwrite").code == 3
        assert files(Path("embeddings")) == files(Path("another"))

    def test_overwrite_leaves_what_is_not_its_own(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs)
        Path("embeddings/mine.txt").write_text("keep")
        np.save("embeddings/mine.npy", np.zeros(3))
        cli("embed", songs, "--overwrite")
        assert Path("embeddings/mine.txt").read_text() == "keep"
        assert np.load("embeddings/mine.npy").shape == (3,)

    def test_batch_precision_and_workers_are_no_other_setting(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs)
        done = cli("embed", songs, "--json", "--batch-size", "2", "--workers", "1")
        assert done.json["unchanged"] == len(GOOD)

    def test_two_at_once(self, cli: Cli, songs: Path) -> None:
        model = ModelIdentity("toy", "f00d", 8)
        first = open_output("out", format="npy", dtype="float32", timestamps=None, model=model, overwrite=False)
        with first:
            done = cli("embed", songs, "-o", "out")
            assert done.code == 1
            assert "another run" in done.err
            assert str(os.getpid()) in done.err
        assert cli("embed", songs, "-o", "out", "--overwrite").code == 3


class TestWrongUse:
    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["SONGS", "--format", "csv"],
            ["SONGS", "--dtype", "float64"],
            ["SONGS", "--device", "tpu"],
            ["SONGS", "--device", "cuda"],
            ["SONGS", "--precision", "int8"],
            ["SONGS", "--batch-size", "0"],
            ["SONGS", "--batch-size", "-3"],
            ["SONGS", "--batch-size", "many"],
            ["SONGS", "--workers", "0"],
            ["SONGS", "--timestamps", "0"],
            ["SONGS", "--timestamps", "-1"],
            ["SONGS", "--timestamps", "0.01"],
            ["SONGS", "--timestamps", "nan"],
            ["SONGS", "--timestamps", "inf"],
            ["SONGS", "--timestamps", "often"],
            ["SONGS", "-o", "-", "--format", "npy"],
            ["SONGS", "-o", "-", "--json"],
            ["SONGS", "--nonsense"],
        ],
        ids=" ".join,
    )
    def test_exit_code_2(self, cli: Cli, songs: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        done = cli("embed", *(str(songs) if argument == "SONGS" else argument for argument in arguments))
        assert done.code == 2
        assert done.out == b""
        assert done.err.strip()
        assert not npys(Path())
        assert not Path("embeddings").exists()

    def test_a_wrong_model_lists_the_right_ones(self, cli: Cli, songs: Path) -> None:
        for name in ("tinny", "~no-such-user/model", "a" * 300, "./nowhere"):
            done = cli("embed", songs, "--model", name)
            assert done.code == 1
            assert "base" in done.err
            assert "toy" in done.err
            assert "other" in done.err

    @pytest.mark.parametrize("list_of_paths", ["missing.txt", ".", "~no-such-user/list"])
    def test_a_list_that_cannot_be_read(self, cli: Cli, list_of_paths: str) -> None:
        done = cli("embed", "--files-from", list_of_paths)
        assert done.code == 1
        assert list_of_paths in done.err


class TestNothingFound:
    @pytest.mark.parametrize("what", ["empty", "text", "hidden", "missing", "list"])
    def test_exit_code_1_and_what_was_looked_for(self, cli: Cli, songs: Path, what: str) -> None:
        Path("empty").mkdir()
        Path("text").mkdir()
        Path("text/notes.txt").write_text("no audio")
        Path("hidden/.git").mkdir(parents=True)
        shutil.copy(songs / "a.wav", "hidden/.git/a.wav")
        done = cli("embed", "-", stdin=b"\n\n") if what == "list" else cli("embed", what)
        assert done.code == 1
        for word in ("flac", "mp3", "ogg", "wav"):
            assert word in done.err
        if what != "list":
            assert what in done.err
        assert not Path("embeddings").exists()

    def test_a_missing_path_among_others_is_named(self, cli: Cli, songs: Path) -> None:
        done = cli("embed", "missing.mp3", songs / "a.wav", "--json")
        assert done.code == 3
        assert (done.json["found"], done.json["embedded"]) == (2, 1)
        assert done.json["failures"][0]["path"] == "missing.mp3"

    def test_a_directory_that_cannot_be_read(self, cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copytree(songs, "songs")
        original = os.scandir

        def scandir(path: Any = ".") -> Any:
            if os.fspath(path).endswith("sub"):
                raise PermissionError(13, "Permission denied", path)
            return original(path)

        monkeypatch.setattr(os, "scandir", scandir)  # root may read anything
        done = cli("embed", "songs", "--json")
        assert done.code == 3
        assert done.json["embedded"] == 4
        reasons = {failure["path"]: failure["reason"] for failure in done.json["failures"]}
        assert "Permission denied" in reasons["songs/sub"]


class TestOddFiles:
    @pytest.mark.skipif(os.name != "posix", reason="names are bytes only on POSIX")
    def test_names_of_any_bytes(self, cli: Cli, songs: Path) -> None:
        names = [b"new\nline.wav", b"\xff\xfe.wav", b" .wav", b"-o.wav", b'"quoted".wav', "ünï 🎵.wav".encode()]
        Path("odd").mkdir()
        for name in names:
            shutil.copy(songs / "a.wav", Path("odd") / os.fsdecode(name))
        done = cli("embed", "odd", "--json")
        assert done.code == 0
        assert done.json["embedded"] == len(names)
        assert {os.fsencode(path.name) for path in Path("embeddings").iterdir()} >= {name + b".npy" for name in names}
        assert cli("embed", "odd", "--json").json["unchanged"] == len(names)
        piped = cli("embed", "-", "-0", "-o", "-", stdin=b"\0".join(b"odd/" + name for name in names))
        assert [os.fsencode(line["path"]) for line in piped.lines] == [b"odd/" + name for name in names]

    def test_a_file_that_vanishes_meanwhile(self, cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copytree(songs, "songs")
        load: Callable[..., Any] = model_module.load

        def later(*arguments: Any, **options: Any) -> Any:
            Path("songs/b.flac").unlink()
            shutil.rmtree("songs/sub")
            return load(*arguments, **options)

        monkeypatch.setattr(model_module, "load", later)
        done = cli("embed", "songs", "--json")
        assert done.code == 3
        assert done.json["embedded"] == 3
        reasons = {failure["path"]: failure["reason"] for failure in done.json["failures"]}
        assert "no such file" in reasons["songs/b.flac"].lower()
        assert "no such file" in reasons["songs/sub/a.wav"].lower()

    def test_the_output_is_a_file(self, cli: Cli, songs: Path) -> None:
        Path("embeddings").write_text("in the way")
        done = cli("embed", songs)
        assert done.code == 1
        assert "embeddings" in done.err
        assert Path("embeddings").read_text() == "in the way"

    def test_only_broken_files(self, cli: Cli, songs: Path) -> None:
        done = cli("embed", songs / "broken.mp3", songs / "sub" / "empty.wav")
        assert done.code != 0
        assert "broken.mp3" in done.err

    def test_silence_one_sample_and_no_sample(self, cli: Cli) -> None:
        import soundfile

        soundfile.write("silence.wav", np.zeros(50_000), RATE)
        soundfile.write("one.wav", noise(1), RATE)
        soundfile.write("none.wav", noise(0), RATE)
        soundfile.write("nan.wav", np.full(999, np.nan), RATE, subtype="FLOAT")
        done = cli("embed", ".", "-o", "out", "--json")
        assert done.code == 3
        assert {failure["path"] for failure in done.json["failures"]} == {"./nan.wav", "./none.wav"}
        assert sorted(npys(Path("out"))) == ["one.wav.npy", "silence.wav.npy"]
        for vector in npys(Path("out")).values():
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)

    def test_timestamps_longer_than_any_song(self, cli: Cli, songs: Path) -> None:
        assert cli("embed", songs / "a.wav", "--timestamps", "1e300").code == 0
        with np.load(next(Path("embeddings").rglob("*.npz"))) as segments:
            assert segments["times"].tolist() == [0.0]
            (vector,) = npys(Path("embeddings")).values()
            np.testing.assert_allclose(segments["embeddings"][0], vector, rtol=0, atol=1e-6)


class TestDim:
    @pytest.mark.parametrize("form", ["npy", "matrix", "parquet", "jsonl"])
    def test_every_format_holds_the_first_numbers(self, cli: Cli, songs: Path, form: str) -> None:
        from poolembed.vectors import read_vectors

        for out, options in (("whole", []), ("short", ["--dim", "4"])):
            done = cli("embed", songs / "sub", "-m", "nested", "-o", out, "--format", form, "--json", *options)
            assert done.json["embedding_size"] == (4 if options else 8)
        whole, short = read_vectors("whole"), read_vectors("short")
        assert whole.keys == short.keys
        expected = whole.matrix[:, :4] / np.linalg.norm(whole.matrix[:, :4], axis=1, keepdims=True)
        np.testing.assert_allclose(short.matrix, expected, atol=1e-6)

    def test_standard_output(self, cli: Cli, songs: Path) -> None:
        done = cli("embed", songs / "a.wav", "-m", "nested", "-o", "-", "--dim", "2")
        (line,) = done.lines
        assert len(line["embedding"]) == 2
        assert np.linalg.norm(line["embedding"]) == pytest.approx(1, abs=1e-6)

    def test_the_manifest_says_which_and_the_same_again_changes_nothing(self, cli: Cli, songs: Path) -> None:
        command = ["embed", songs / "a.wav", "-m", "nested", "--json", "--dim", "4"]
        assert cli(*command).json["embedded"] == 1
        assert manifest(Path("embeddings"))[0]["embedding_size"] == 4
        assert cli(*command).json["unchanged"] == 1

    def test_another_size_is_refused_as_another_model_is(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs / "a.wav", "-m", "nested", "--dim", "4")
        before = files(Path("embeddings"))
        for options, asked in ((["--dim", "2"], 2), ([], 8)):
            done = cli("embed", songs / "a.wav", "-m", "nested", *options)
            assert done.code == 1
            assert f"embedding size 4 there, {asked} asked for" in done.err
        assert files(Path("embeddings")) == before

    def test_sizes_that_there_are_none_of_say_which_there_are(self, cli: Cli, songs: Path) -> None:
        done = cli("embed", songs / "a.wav", "-m", "nested", "--dim", "3")
        assert done.code == 2
        assert "2, 4" in done.err
        done = cli("embed", songs / "a.wav", "--dim", "4")
        assert done.code == 2
        assert "--nested" in done.err
        assert not Path("embeddings").exists()
