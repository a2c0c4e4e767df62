"""``poolembed evaluate``: a model and its vectors score the same, beside baselines, and bad input is named."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Cli
from tests.conftest import RATE, noise

Rows = list[dict[str, str]]
FOLDS = "123"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to: 18 clips of three labels in a folder each, and ``labels.csv`` with folds."""
    root = tmp_path_factory.mktemp("labelled") / "clips"
    rows: Rows = []
    for number in range(18):
        label = ("low", "middle", "high")[number % 3]
        path = root / label / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(2500 + 200 * number) / RATE
        tone = 0.3 * np.sin(2 * np.pi * (300 + 700 * (number % 3)) * time)
        soundfile.write(path, tone + 0.3 * noise(len(time), number), RATE, subtype="FLOAT")
        rows.append({"path": f"{label}/{number}.wav", "label": label, "fold": FOLDS[number // 3 % 3]})
    write(root / "labels.csv", rows)
    return root


def write(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    return path


def read(path: Path) -> Rows:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def absolute(clips: Path) -> Rows:
    """The rows of ``labels.csv`` for a table that lies elsewhere."""
    return [{**row, "path": str(clips / row["path"])} for row in read(clips / "labels.csv")]


_SAID: dict[tuple[str, ...], Any] = {}


def of_toy(cli: Cli, clips: Path, *options: str) -> Any:
    """What ``evaluate toy`` says of the clips as JSON, which is the same for every test and so asked once."""
    if options not in _SAID:
        _SAID[options] = cli("evaluate", "toy", clips / "labels.csv", "--json", *options).json
    return _SAID[options]


def save_matrix(cli: Cli, clips: Path) -> None:
    """``x.npy`` and ``paths.txt``, in another order than the table's."""
    assert cli("embed", clips, "-o", "matrix", "--format", "matrix").code == 0
    records = [json.loads(line) for line in Path("matrix/manifest.jsonl").read_text().splitlines()[1:]]
    matrix = np.load("matrix/embeddings.npy")[::-1]
    np.save("x.npy", matrix)
    Path("paths.txt").write_text("".join(f"{record['key']}\n" for record in records[::-1]))


class TestForms:
    def test_a_model_on_what_it_was_trained_on_is_told(self, cli: Cli, clips: Path, models: Path) -> None:
        """By the run beside it, which may have spelt the path another way."""
        run = Path(shutil.copytree(models / "toy", "mine")) / "run.toml"
        run.write_text(f"data = {str(clips / '..' / clips.name / 'labels.csv')!r}\n")
        done = cli("evaluate", "./mine", clips / "labels.csv", "--json")
        assert "was trained on clips of" in done.json["notes"][0]
        other = write(clips.parent / "other.csv", absolute(clips))
        done = cli("evaluate", "./mine", other, "--json")
        assert not any("trained on" in note for note in done.json["notes"])

    def test_a_model_beside_its_baselines(self, cli: Cli, clips: Path) -> None:
        done = cli("evaluate", "toy", clips / "labels.csv", "--fold-column", "fold", "--json")
        assert done.code == 0, done.err
        found = done.json
        assert found["labels"] == ["high", "low", "middle"]
        assert (found["clips"], found["groups"], found["multi_label"]) == (18, 18, False)
        assert found["folds"] == {"column": "fold", "names": ["1", "2", "3"], "clips": [6, 6, 6]}
        assert [(each["name"], each["kind"], each["embedding_size"]) for each in found["systems"]] == [
            ("toy", "model", 8),
            ("untrained", "untrained", 8),
            ("mel mean+std", "mel", 32),
        ]
        for system in found["systems"]:
            assert system.keys() == {
                "name", "kind", "embedding_size", "knn", "linear", "retrieval", "queries", "notes",
            }  # fmt: skip
            assert system["knn"].keys() == system["linear"].keys() == {"accuracy", "macro_f1"}
            for score in (*system["knn"].values(), *system["linear"].values(), *system["retrieval"].values()):
                assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
        assert found["systems"][2]["linear"]["accuracy"]["value"] > 0.8  # tones are told by their mel bands
        assert found["failures"] == found["dropped"] == []

    def test_a_folder_and_a_table_and_made_folds(self, cli: Cli, clips: Path) -> None:
        folder = cli("evaluate", "toy", clips, "--json").json
        table = of_toy(cli, clips)
        assert folder["folds"] == table["folds"]
        assert folder["folds"]["column"] is None
        assert len(folder["folds"]["names"]) == 5
        for one, two in zip(folder["systems"], table["systems"], strict=True):  # the order of the clips does not matter
            for kind in ("knn", "linear", "retrieval"):
                for name, score in one[kind].items():
                    assert two[kind][name] == pytest.approx(score)
        assert any("--fold-column fold" in note for note in table["notes"])

    @pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl"])
    def test_vectors_score_as_the_model_does(self, cli: Cli, clips: Path, format: str) -> None:
        labels = clips / "labels.csv"
        model = of_toy(cli, clips, "--fold-column", "fold", "--per-class")
        assert cli("embed", clips, "-o", "out", "--format", format).code == 0
        done = cli("evaluate", "--embeddings", "out", labels, "--fold-column", "fold", "--json", "--per-class")
        assert done.code == 0, done.err
        found = done.json["systems"][0]
        assert (found.pop("name"), found.pop("kind")) == ("out", "vectors")
        assert found == {name: value for name, value in model["systems"][0].items() if name not in ("name", "kind")}
        assert [system["kind"] for system in done.json["systems"]] == ["vectors", "mel"]

    def test_the_first_numbers_score_as_their_vectors_do(self, cli: Cli, clips: Path) -> None:
        done = cli("evaluate", "nested", clips / "labels.csv", "--dim", "2", "--json")
        assert done.code == 0, done.err
        assert [system["embedding_size"] for system in done.json["systems"]] == [2, 8, 32]
        assert cli("embed", clips, "-m", "nested", "--dim", "2", "-o", "out").code == 0
        found = cli("evaluate", "--embeddings", "out", clips / "labels.csv", "--json").json["systems"][0]
        for kind in ("knn", "linear", "retrieval"):
            for name, score in done.json["systems"][0][kind].items():
                assert found[kind][name] == pytest.approx(score)

    def test_a_bare_matrix_scores_the_same(self, cli: Cli, clips: Path) -> None:
        save_matrix(cli, clips)
        labels = clips / "labels.csv"
        model = of_toy(cli, clips)["systems"][0]
        found = cli("evaluate", "--embeddings", "x.npy", "--paths", "paths.txt", labels, "--json").json["systems"][0]
        for kind in ("knn", "linear", "retrieval", "queries"):
            assert found[kind] == model[kind]

    def test_where_the_audio_is_not_at_hand_the_floor_is_missing(self, cli: Cli, clips: Path) -> None:
        save_matrix(cli, clips)
        rows = read(clips / "labels.csv")
        done = cli("evaluate", "--embeddings", "x.npy", "--paths", "paths.txt", write(Path("t.csv"), rows), "--json")
        assert done.code == 0, done.err
        assert [system["name"] for system in done.json["systems"]] == ["x.npy"]
        assert any("no baseline mel mean+std: 18 of 18 clips cannot be read" in note for note in done.json["notes"])
        assert "no baseline mel mean+std" in done.err

    def test_several_labels(self, cli: Cli, clips: Path) -> None:
        rows = absolute(clips)
        for number, row in enumerate(rows):
            row["label"] += ";odd" if number % 2 else ""
        done = cli("evaluate", "toy", write(Path("t.csv"), rows), "--fold-column", "fold", "--json", "--per-class")
        assert done.code == 0, done.err
        assert done.json["multi_label"]
        model = done.json["systems"][0]
        assert model["knn"].keys() == model["linear"].keys() == {"map"}
        assert [each["label"] for each in model["per_class"]["linear"]] == ["high", "low", "middle", "odd"]
        assert [each["clips"] for each in model["per_class"]["linear"]] == [6, 6, 6, 9]

    def test_other_columns(self, cli: Cli, clips: Path) -> None:
        rows = [{"path": row["path"], "pitch": row["label"], "year": row["fold"]} for row in absolute(clips)]
        write(Path("t.csv"), rows)
        options = ("--label-column", "pitch", "--fold-column", "year", "--json")
        done = cli("evaluate", "toy", "t.csv", *options)
        assert done.code == 0, done.err
        assert (done.json["column"], done.json["folds"]["column"]) == ("pitch", "year")
        plain = of_toy(cli, clips, "--fold-column", "fold")
        assert done.json["systems"] == plain["systems"]

    def test_stretches_of_one_file(self, cli: Cli, clips: Path) -> None:
        """A table of stretches scores as a table of files that were cut out beforehand."""
        whole: list[Any] = []
        rows: Rows = []
        start = 0
        for row in read(clips / "labels.csv"):
            samples, _ = soundfile.read(clips / row["path"], dtype="float32")
            end = start + len(samples)
            rows.append({**row, "path": "long.wav", "start": str(start / RATE), "end": str(end / RATE)})
            whole.append(samples)
            start = end
        soundfile.write("long.wav", np.concatenate(whole), RATE, subtype="FLOAT")
        cut = cli("evaluate", "toy", write(Path("t.csv"), rows), "--fold-column", "fold", "--json")
        assert cut.code == 0, cut.err
        files = of_toy(cli, clips, "--fold-column", "fold")
        values = [
            [{name: score["value"] for name, score in each[kind].items()} for kind in ("knn", "linear")]
            for each in (cut.json["systems"][0], files["systems"][0])
        ]
        assert values[0] == values[1]
        assert cut.json["groups"] == 1  # of one file: no intervals, and it says so
        assert cut.json["systems"][0]["knn"]["accuracy"]["low"] is None
        assert any("only 1 group" in note for note in cut.json["notes"])

    def test_tables(self, cli: Cli, clips: Path) -> None:
        done = cli("evaluate", "toy", clips / "labels.csv", "--fold-column", "fold", "--per-class")
        assert done.code == 0
        out = done.out.decode()
        numbers = cli("evaluate", "toy", clips / "labels.csv", "--fold-column", "fold", "--json").json["systems"]
        assert "18 clips, 3 labels, 3 folds (column fold), 18 groups" in out.splitlines()[0]
        assert [name in out.splitlines()[1] for name in ("toy", "untrained", "mel mean+std")] == [True] * 3
        for line, kind, name in (
            ("5-NN accuracy", "knn", "accuracy"),
            ("linear macro F1", "linear", "macro_f1"),
            ("retrieval R@1", "retrieval", "recall_at_1"),
        ):
            (row,) = (row for row in out.splitlines() if row.startswith(line))
            for system in numbers:
                score = system[kind][name]
                assert f"{100 * score['value']:.1f} ({100 * score['low']:.1f} to {100 * score['high']:.1f})" in row
        (row,) = (row for row in out.splitlines() if row.startswith("middle"))
        assert row.split()[1] == "6"
        assert "embedding with toy" in done.err
        assert "scoring" in done.err


class TestBadInput:
    def test_broken_clips_are_named_and_cost_only_themselves(self, cli: Cli, clips: Path) -> None:
        Path("broken.mp3").write_bytes(b"no music" * 99)
        extra = [
            {"path": str(Path("broken.mp3").resolve()), "label": "low", "fold": "1"},
            {"path": "gone.wav", "label": "high", "fold": "2"},
        ]
        done = cli("evaluate", "toy", write(Path("t.csv"), absolute(clips) + extra), "--fold-column", "fold", "--json")
        assert done.code == 3
        assert {Path(failure["key"]).name for failure in done.json["failures"]} == {"broken.mp3", "gone.wav"}
        for name in ("broken.mp3", "gone.wav"):
            assert name in done.err
        plain = of_toy(cli, clips, "--fold-column", "fold")
        assert done.json["systems"] == plain["systems"]
        shown = cli("evaluate", "toy", "t.csv", "--fold-column", "fold")
        assert shown.code == 3
        assert b"18 clips" in shown.out

    def test_rows_without_a_label_are_named(self, cli: Cli, clips: Path) -> None:
        rows = absolute(clips)
        rows[0]["label"] = ""
        done = cli("evaluate", "toy", write(Path("t.csv"), rows), "--fold-column", "fold", "--json")
        assert done.code == 0
        assert done.json["clips"] == 17
        assert [each["key"] for each in done.json["dropped"]] == [rows[0]["path"]]
        assert rows[0]["path"] in done.err

    def test_copies_across_the_given_folds_are_said(self, cli: Cli, clips: Path) -> None:
        Path("copy.wav").write_bytes((clips / "low" / "0.wav").read_bytes())
        rows = [*absolute(clips), {"path": "copy.wav", "label": "low", "fold": "3"}]
        write(Path("t.csv"), rows)
        done = cli("evaluate", "toy", "t.csv", "--fold-column", "fold")
        assert "2 clips have a copy (the same vector) in another fold" in done.err
        made = cli("evaluate", "toy", "t.csv", "--json").json
        assert made["groups"] == 18  # the copies are one

    @pytest.mark.parametrize(
        ("labels", "options", "words"),
        [
            ([{"label": "one"}], [], ["only the label 'one'", "t.csv"]),
            ([{"fold": "1"}], ["--fold-column", "fold"], ["only the fold '1'"]),
            ([{"fold": "1"}, {"fold": ""}], ["--fold-column", "fold"], ["no fold", "column 'fold'", "--fold-column"]),
            ([], ["--fold-column", "years"], ["years", "t.csv"]),
            ([], ["--label-column", "genre"], ["genre", "t.csv"]),
        ],
    )
    def test_labels_that_cannot_be_scored(
        self, cli: Cli, clips: Path, labels: list[dict[str, str]], options: list[str], words: list[str]
    ) -> None:
        rows = absolute(clips)
        for number, row in enumerate(rows):
            row.update(labels[number % len(labels)] if labels else {})
        done = cli("evaluate", "toy", write(Path("t.csv"), rows), *options)
        assert (done.code, done.out) == (1, b"")
        assert all(word in done.err for word in words), done.err
        assert "embedding" not in done.err  # it is said before the long work

    def test_nothing_that_can_be_embedded(self, cli: Cli, clips: Path) -> None:
        done = cli("evaluate", "toy", write(Path("t.csv"), read(clips / "labels.csv")))
        assert done.code == 1
        assert "none of 18 clips" in done.err
        assert "low/0.wav" in done.err

    def test_the_same_song_under_every_name(self, cli: Cli, clips: Path) -> None:
        rows = []
        for number in range(6):
            Path(f"{number}.wav").write_bytes((clips / "low" / "0.wav").read_bytes())
            rows.append({"path": f"{number}.wav", "label": "ab"[number % 2]})
        done = cli("evaluate", "toy", write(Path("t.csv"), rows))
        assert done.code == 1
        assert "all 6 clips are the same" in done.err

    def test_clips_without_a_vector(self, cli: Cli, clips: Path) -> None:
        save_matrix(cli, clips)
        np.save("x.npy", np.load("x.npy")[:10])
        lines = Path("paths.txt").read_text().splitlines()
        Path("paths.txt").write_text("\n".join(lines[:10]))
        done = cli("evaluate", "--embeddings", "x.npy", "--paths", "paths.txt", clips / "labels.csv")
        assert done.code == 1
        assert "8 of 18 clips" in done.err
        assert "and 3 more" in done.err
        assert "poolembed: " in done.err
        assert len(done.err.splitlines()) == 2  # what, and the way out

    def test_vectors_that_are_none(self, cli: Cli, clips: Path) -> None:
        save_matrix(cli, clips)
        good = np.load("x.npy")
        for row, value, word in ((3, np.nan, "NaN"), (4, 0, "zeros")):
            bad = good.copy()
            bad[row] = value
            np.save("bad.npy", bad)
            done = cli("evaluate", "--embeddings", "bad.npy", "--paths", "paths.txt", clips / "labels.csv")
            assert done.code == 1
            assert word in done.err
            assert f"(row {row})" in done.err
        np.save("bad.npy", np.array([{}] * 18, object), allow_pickle=True)
        done = cli("evaluate", "--embeddings", "bad.npy", "--paths", "paths.txt", clips / "labels.csv")
        assert "pickled" in done.err
        np.save("bad.npy", good[:5])
        done = cli("evaluate", "--embeddings", "bad.npy", "--paths", "paths.txt", clips / "labels.csv")
        assert "5 rows" in done.err
        assert "18 lines" in done.err

    def test_vectors_of_no_clip_are_said(self, cli: Cli, clips: Path) -> None:
        save_matrix(cli, clips)
        rows = absolute(clips)[:12]
        done = cli("evaluate", "--embeddings", "x.npy", "--paths", "paths.txt", write(Path("t.csv"), rows))
        assert done.code == 0
        assert "6 vectors belong to no clip" in done.err

    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            (["toy"], "a model and labels"),
            (["toy", "t.csv", "u.csv"], "a model and labels"),
            (["--embeddings", "x.npy", "toy", "t.csv"], "one argument"),
            (["toy", "t.csv", "--paths", "p.txt"], "--paths belongs to --embeddings"),
            (["--embeddings", "x.npy", "t.csv", "--dim", "2"], "--dim is of a model"),
        ],
    )
    def test_wrong_use(self, cli: Cli, arguments: list[str], word: str) -> None:
        done = cli("evaluate", *arguments)
        assert done.code == 2
        assert word in done.err

    def test_no_such_model(self, cli: Cli, clips: Path) -> None:
        done = cli("evaluate", "tooy", clips)
        assert done.code == 1
        assert "tooy" in done.err
        assert "toy" in done.err.replace("tooy", "")
