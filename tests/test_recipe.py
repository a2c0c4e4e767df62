"""The corpus: what it may be made of, fetching it, and cutting it into clips."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from models.recipe import copies, fetch, segments, tables
from models.recipe.corpus import KINDS, SMOKE, Kind, Package, never_train, read_corpus
from models.recipe.drums import GM_KEYS, drum_of
from poolembed.audio.excerpt import read_excerpts
from poolembed.audio.source import open_source
from poolembed.labels import read_labels

RATE = 16_000
HELD_OUT = """
naev-data supertuxkart-data widelands-data openclonk-data marsshooter-data freedroidrpg-data trackballs-data xmoto-data
colobot-common-sounds fretsonfire-songs-muldjord fretsonfire-songs-sectoid zaz-data enigma-data unknown-horizons
"""


def package(**options: object) -> Package:
    return msgspec.convert({"name": "game", "licence": "CC0-1.0", "by": "us", **options}, Package)


def tune(seconds: float, seed: int) -> NDArray[np.float64]:
    """Notes of a fifth of a second each, of random pitch and loudness."""
    rng = np.random.default_rng(seed)
    notes = [
        np.sin(np.arange(RATE // 5) * rng.uniform(0.05, 0.9)) * rng.uniform(0.05, 0.5) for _ in range(int(seconds * 5))
    ]
    return np.concatenate(notes)


class TestTheList:
    def test_never_train(self) -> None:
        assert never_train() == set(HELD_OUT.split())

    def test_nothing_held_out_is_on_it(self) -> None:
        names = {package.name for package in read_corpus()}
        assert not names & never_train()
        # nor another package of the same game
        games = {name.removesuffix("-data").removesuffix("-common-sounds") for name in never_train()}
        assert not [name for name in names for game in games if name == game or name.startswith(f"{game}-")]

    def test_what_is_held_out_cannot_be_added(self, tmp_path: Path) -> None:
        file = tmp_path / "corpus.toml"
        entry = '[[package]]\nname = "{}"\nlicence = "GPL-2"\nby = "them"\n'
        file.write_text(entry.format("neverball-common"))
        assert len(read_corpus(file)) == 1
        file.write_text(entry.format("neverball-common") + entry.format("naev-data"))
        with pytest.raises(ValueError, match=r"never trained on.*naev-data"):
            read_corpus(file)
        file.write_text(entry.format("neverball-common") * 2)
        with pytest.raises(ValueError, match=r"twice.*neverball-common"):
            read_corpus(file)
        file.write_text(entry.format("neverball-common") + 'musik = ["*"]\n')
        with pytest.raises(msgspec.ValidationError, match="musik"):
            read_corpus(file)

    def test_every_package_is_free_and_has_authors(self) -> None:
        for each in read_corpus():
            assert each.licence, each.name
            assert each.by, each.name
            for word in ("NC", "ND", "non-commercial", "proprietary"):
                assert word not in each.licence.replace("-", " ").split(), f"{each.name}: {each.licence}"

    def test_every_package_gives_something(self) -> None:
        for each in read_corpus():
            assert any(getattr(each, kind) for kind in KINDS), each.name
            assert all(reason for reason in each.drop.values()), each.name

    def test_some_of_each_is_held_out(self) -> None:
        packages = read_corpus()
        for kind in ("music", "modules", "speech", "drums", "effects", "soundfonts", "midi"):
            sides = {each.valid for each in packages if getattr(each, kind)}
            assert sides == {False, True}, kind

    def test_smoke(self) -> None:
        assert set(SMOKE) < {each.name for each in read_corpus()}


class TestKinds:
    def test_the_first_that_fits(self) -> None:
        game = package(music=("*/music/*",), effects=("*",), soundfonts=("*.sf2",))
        assert game.kind("usr/music/a.ogg") == "music"
        assert game.kind("usr/Music/A.OGG") == "music"
        assert game.kind("usr/sound/a.ogg") == "effects"
        assert game.kind("usr/music/readme.txt") is None
        assert package(music=("*/music/*",)).kind("usr/sound/a.ogg") is None

    def test_dropped(self) -> None:
        (supertux,) = (each for each in read_corpus() if each.name == "supertux-data")
        assert supertux.kind("usr/share/games/supertux2/music/forest/forest.ogg") == "music"
        assert supertux.kind("usr/share/games/supertux2/music/misc/Beneath_the_Rabbit_Holes.ogg") is None


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is Debian's")
class TestFetch:
    game = package(music=("*.ogg",), archives=("usr/data.pk3",), drop={"*/bad.ogg": "not free"})

    def build(self, folder: Path) -> Path:
        """A package with two tracks, one of them in an archive, and other things."""
        root = folder / "root"
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN" / "control").write_text(
            "Package: game\nVersion: 1\nArchitecture: all\nMaintainer: us <us@example.org>\nDescription: a game\n"
        )
        for name in ("usr/a.ogg", "usr/bad.ogg", "usr/texture.png", "usr/share/doc/game/copyright"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(name.encode())
        with zipfile.ZipFile(root / "usr" / "data.pk3", "w") as archive:
            for name in ("music/b.ogg", "music/bad.ogg", "map.bsp", "../../../../escaped.ogg"):
                archive.writestr(name, name)
        downloads = folder / "corpus" / ".downloads"
        downloads.mkdir(parents=True)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-b", root, downloads / "game_1_all.deb"],
            check=True,
            capture_output=True,
        )
        return folder / "corpus"

    def test_what_is_kept(self, tmp_path: Path) -> None:
        corpus = self.build(tmp_path)
        file = fetch.download("game", corpus / ".downloads")
        with zipfile.ZipFile(tmp_path / "root" / "usr" / "data.pk3") as archive:
            assert "../../../../escaped.ogg" in archive.namelist()
        with pytest.raises(OSError, match="leads out"):
            fetch.install(self.game, file, corpus)
        assert not (corpus / "game").exists()
        harmless = package(music=("*/a.ogg", "*/music/*"), archives=("usr/data.pk3",), drop={"*/bad.ogg": "not free"})
        assert fetch.install(harmless, file, corpus) == 2
        kept = sorted(path.relative_to(corpus / "game").as_posix() for path in (corpus / "game").rglob("*.*"))
        assert kept == ["package.json", "usr/a.ogg", "usr/data.pk3", "usr/data.pk3/music/b.ogg"]
        assert (corpus / "game" / "usr/share/doc/game/copyright").is_file()
        assert json.loads((corpus / "game" / "package.json").read_text())["file"] == "game_1_all.deb"
        assert not file.exists()

    def test_a_package_that_gives_nothing(self, tmp_path: Path) -> None:
        corpus = self.build(tmp_path)
        with pytest.raises(FileNotFoundError, match="none of the files"):
            fetch.install(package(music=("*.mp3",)), corpus / ".downloads" / "game_1_all.deb", corpus)
        assert not (corpus / "game").exists()

    def test_the_same_command_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        corpus = self.build(tmp_path)
        good = package(music=("*/a.ogg",))
        broken = msgspec.structs.replace(good, name="broken")
        (corpus / ".downloads" / "broken_1_all.deb").write_bytes(b"no package")
        monkeypatch.setattr(fetch, "read_corpus", lambda: [broken, good])
        assert fetch.main([str(corpus)]) == 3
        assert "broken" in capsys.readouterr().err
        assert (corpus / "game" / "usr" / "a.ogg").is_file()
        assert not (corpus / "broken").exists()
        assert fetch.main([str(corpus), "--only", "game"]) == 0  # nothing to do: its file is gone
        with pytest.raises(SystemExit):
            fetch.main([str(corpus), "--only", "naev-data"])


class TestDrums:
    @pytest.mark.parametrize(
        ("name", "drum"),
        [
            ("BD_01", "kick"),
            ("EE_Kick_Hard_1", "kick"),
            ("drum_bass_soft", "kick"),
            ("PearlSnare-Hard", "snare"),
            ("PearlSnareRimshot-Soft", "rim"),
            ("HiHatFoot-3", "hihat pedal"),
            ("808_Hat_Open", "hihat open"),
            ("EE_Hat_Op_Dirty", "hihat open"),
            ("HatClosed-Med", "hihat closed"),
            ("HH2_04", "hihat closed"),
            ("CrashRide18Bell-0", "ride bell"),
            ("Crash18-0", "crash"),
            ("Ride-Softest", "ride"),
            ("TomFloor-Med", "tom"),
            ("tabla_ghe1", "tabla"),
            ("Cowbell-Soft", "cowbell"),
            ("__anillogic__trimo-c3", ""),
            ("emptySample", ""),
            ("BL_01", ""),
        ],
    )
    def test_by_name(self, name: str, drum: str) -> None:
        assert drum_of(name) == drum

    def test_names_and_keys_share_their_classes(self) -> None:
        assert {"kick", "snare", "hihat open", "tom", "ride", "crash"} <= set(GM_KEYS.values())


class TestSegments:
    @pytest.fixture
    def corpus(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Two packages: tracks, a copy, the same track encoded anew, a sound, silence, and a file that is none."""
        one, two = tmp_path / "one", tmp_path / "two"
        for folder in (one / "music", one / "sound", two / "music"):
            folder.mkdir(parents=True)
        track = tune(14, 1)
        soundfile.write(one / "music" / "a; b.wav", track, RATE)
        shutil.copy(one / "music" / "a; b.wav", two / "music" / "copy.wav")
        soundfile.write(two / "music" / "again.ogg", track * 0.5, RATE)
        soundfile.write(two / "music" / "other.wav", tune(14, 2), RATE)
        soundfile.write(two / "music" / "jingle.wav", tune(1, 3), RATE)
        half_silent = np.concatenate([tune(6, 4), np.zeros(6 * RATE)])
        soundfile.write(two / "music" / "half.wav", half_silent, RATE)
        soundfile.write(one / "sound" / "bump.wav", tune(0.4, 5), RATE)
        soundfile.write(one / "sound" / "nothing.wav", np.zeros(RATE), RATE)
        (two / "music" / "broken.ogg").write_bytes(b"no music" * 99)
        patterns = {"music": ("music/*",), "effects": ("sound/*",)}
        packages = [package(name="one", **patterns), package(name="two", valid=True, artist="Them", **patterns)]
        monkeypatch.setattr(segments, "read_corpus", lambda: packages)
        return tmp_path

    def test_tables(self, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert segments.main([str(corpus)]) == 0
        assert "two/music/broken.ogg" in capsys.readouterr().err
        rows = list(tables.read_table(corpus / "music.csv"))
        assert {row["path"] for row in rows} == {
            "one/music/a; b.wav",
            "two/music/other.wav",
            "two/music/jingle.wav",
            "two/music/half.wav",
        }
        clips = [(row["start"], row["end"]) for row in rows if row["path"] == "two/music/other.wav"]
        assert clips == [("0", "5.12"), ("5.12", "10.24"), ("10.24", "14")]
        assert [row["start"] for row in rows if row["path"] == "two/music/half.wav"] == ["0", "5.12"]
        assert {row["split"] for row in rows if row["package"] == "two"} == {"valid"}
        assert {row["artist"] for row in rows if row["package"] == "two"} == {"Them"}
        assert {row["track"] for row in rows} == {"one/music/a, b", "two/music/other", "two/music/half", ""}
        (sound,) = tables.read_table(corpus / "sounds.csv")
        assert (sound["path"], sound["kind"], sound["split"]) == ("one/sound/bump.wav", "effects", "train")
        copies = (corpus / "tracks.csv").read_text()
        assert copies.count("one/music/a; b.wav\n") == 2  # named as what the copies are copies of

    def test_poolembed_reads_them(self, corpus: Path) -> None:
        segments.main([str(corpus)])
        tables.main([str(corpus)])
        labelled = read_labels(corpus / "corpus.csv", columns=("track", "package"))
        assert not labelled.dropped
        assert not any(labelled.multi_label.values())
        assert {clip.split for clip in labelled.clips} == {"train", "valid"}
        assert len(labelled.clips) == sum(
            len((corpus / f"{name}.csv").read_text().splitlines()) - 1 for name in ("music", "sounds")
        )

    def test_again_decodes_nothing(self, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        segments.main([str(corpus)])
        before = (corpus / "music.csv").read_text()
        journal = corpus / "index.jsonl"
        journal.write_bytes(journal.read_bytes()[:-20])  # as a killed run leaves it
        decoded: list[str] = []
        examine = segments.examine

        def watched(corpus: Path, path: str, size: int, kind: Kind) -> segments.Sound:
            decoded.append(path)
            return examine(corpus, path, size, kind)

        monkeypatch.setattr(segments, "examine", watched)
        segments.main([str(corpus)])
        assert len(decoded) == 1
        assert (corpus / "music.csv").read_text() == before

    def test_smoke(self, tmp_path: Path) -> None:
        assert segments.main([str(tmp_path), "--smoke"]) == 0
        assert tables.main([str(tmp_path)]) == 0
        labelled = read_labels(tmp_path / "corpus.csv", columns=("kind",))
        assert {clip.split for clip in labelled.clips} == {"train", "valid"}
        assert {label for clip in labelled.clips for label in clip.labels["kind"]} == {"music", "drums"}
        assert 20 < sum((clip.end or 0) - clip.start for clip in labelled.clips) < 90

    def test_worn_copies(self, corpus: Path) -> None:
        segments.main([str(corpus)])
        assert copies.main([str(corpus)]) == 0
        tables.main([str(corpus)])
        labelled = read_labels(corpus / "corpus.csv", columns=("track", "copy_of"), need_labels=False)
        assert not labelled.dropped
        clips = {clip.key: clip for clip in labelled.clips}
        worn = [clip for clip in labelled.clips if clip.key.startswith("copies/")]
        assert len(worn) == len(list(tables.read_table(corpus / "music.csv")))
        for copy in worn:
            if not copy.labels["copy_of"]:
                assert ";" in copy.key
                continue
            original = clips[copy.labels["copy_of"][0]]
            assert (copy.start, copy.end, copy.split, copy.group) == (
                original.start,
                original.end,
                original.split,
                original.group,
            )
            assert copy.labels["track"] == original.labels["track"]
            with open_source(copy.path, RATE) as source:
                samples = np.concatenate(list(source.blocks()))
            last = max(other.end or 0.0 for other in worn if other.path == copy.path)
            assert len(samples) == pytest.approx(last * RATE, abs=RATE // 10)

    def test_worn_copies_of_a_long_track(self, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stretch of each; every clip of it is where its row says, beside the clip that it is a copy of."""
        monkeypatch.setattr(copies, "CLIPS", 2)
        monkeypatch.setattr(copies, "wear", lambda samples, rng: samples)
        segments.main([str(corpus)])
        assert copies.main([str(corpus)]) == 0
        by_path: dict[str, list[dict[str, str]]] = {}
        for row in tables.read_table(corpus / "copies.csv"):
            by_path.setdefault(row["path"], []).append(row)
        shifted = 0
        for path, rows in by_path.items():
            assert len(rows) <= 2
            assert float(rows[0]["start"]) == 0
            for row in rows:
                if not row["copy_of"]:
                    continue
                of, _, span = row["copy_of"].partition("#t=")
                begin, end = map(float, span.split(","))
                shifted += begin > float(row["start"])
                assert float(row["end"]) - float(row["start"]) == pytest.approx(end - begin, abs=1e-3)
                spans = ((path, float(row["start"]), float(row["end"])), (of, begin, end))
                (_, one), (_, other) = (next(read_excerpts(corpus / p, RATE, [(s, e)])) for p, s, e in spans)
                loud = [np.square(each[: 2 * RATE].reshape(-1, RATE // 20)).mean(1) for each in (one, other)]
                assert np.corrcoef(np.log(loud[0] + 1e-6), np.log(loud[1] + 1e-6))[0, 1] > 0.9
        assert shifted

    @pytest.mark.parametrize("suffix", sorted(copies.CODECS))
    def test_a_copy_is_in_step_and_sounds_otherwise(self, tmp_path: Path, suffix: str) -> None:
        frame = copies.RATE // 20
        for seed in range(4):
            rng = np.random.default_rng(seed)
            loudness = np.repeat(rng.uniform(0.01, 0.5, 40), 4 * frame)  # every fifth of a second another
            song = (rng.normal(size=len(loudness)) * loudness * 0.2).astype(np.float32)
            copies.encode(copies.wear(song, rng), tmp_path / f"{seed}.{suffix}", rng)
            with open_source(tmp_path / f"{seed}.{suffix}", copies.RATE) as source:
                worn = np.concatenate(list(source.blocks()))
            assert len(worn) == pytest.approx(len(song), abs=copies.RATE // 10)
            one, other = (
                np.log(np.square(each[: 150 * frame]).reshape(-1, frame).mean(1) + 1e-9) for each in (song, worn)
            )
            assert np.corrcoef(one, other)[0, 1] > 0.8
            assert np.corrcoef(song[: len(worn)], worn[: len(song)])[0, 1] < 0.98

    def test_copies_are_made_once(self, corpus: Path) -> None:
        segments.main([str(corpus)])
        copies.main([str(corpus), "--smoke"])
        made = {path: path.stat().st_mtime_ns for path in (corpus / "copies").rglob("*.*")}
        table = (corpus / "copies.csv").read_text()
        copies.main([str(corpus), "--smoke"])
        assert {path: path.stat().st_mtime_ns for path in (corpus / "copies").rglob("*.*")} == made
        assert (corpus / "copies.csv").read_text() == table

    def test_an_empty_corpus(self, tmp_path: Path) -> None:
        with pytest.raises(SystemExit):
            segments.main([str(tmp_path)])
        with pytest.raises(SystemExit):
            tables.main([str(tmp_path)])
