"""report.html: whole, self-contained, right in its numbers, and safe whatever labels and files are called."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolembed.errors import OutputError, UsageError
from poolembed.train import figures
from poolembed.train.config import ObjectiveConfig
from poolembed.train.figures import ROLES
from poolembed.train.report import DRAWN, write_report
from tests.train.fake_run import ANIMALS, fake_run

VOID = {"meta", "br", "img", "link", "input", "hr"}
SECTIONS = ["learning", "pooling", "classes", "confused", "data", "configuration"]
HOSTILE = [
    "<script>alert(1)</script>",
    "</svg><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "$\\frac{$",
    "a & b",
    "_hidden",
    "nul\x00 line\nbreak \udcff",
    "\u202eright to left",
    "日本語",
    'style="fill: #01fe01"',
]


class Page(HTMLParser):
    """Elements, texts and tables of a page; every element must be closed, and in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.texts.append(data)
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def table(self, *head: str) -> list[list[str]]:
        """The rows of the table with these first titles."""
        return next(rows[1:] for rows in self.tables if rows[0][: len(head)] == list(head))

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def report(directory: Path, **run: Any) -> tuple[Page, str]:
    path = write_report(fake_run(directory / "mymodel", **run))
    assert path == directory / "mymodel" / "report.html"
    text = path.read_text(encoding="utf-8")
    return Page(text), text


@dataclass(frozen=True)
class Made:
    page: Page
    text: str
    directory: Path

    @property
    def results(self) -> Any:
        return json.loads((self.directory / "results.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """The report of one of `RUNS`, made once."""

    @cache
    def make(name: str) -> Made:
        directory = tmp_path_factory.mktemp("run")
        return Made(*report(directory, **RUNS[name]), directory / "mymodel")

    return make


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr(figures, "drawn", lambda *_, **__: "<svg></svg>")


def results_of(directory: Path) -> Any:
    return json.loads((directory / "mymodel" / "results.json").read_text())


RUNS: dict[str, dict[str, Any]] = {
    "single": {"epochs": 6, "clips": 2000},
    "scalar": {"epochs": 3, "channels": 1, "kind": "gem"},
    "multi": {"epochs": 4, "multi_label": True},
    "predictions": {"epochs": 4, "kind": "gem", "multi_label": True, "pool": "predictions"},
    "one epoch, two classes": {"epochs": 1, "labels": ["yes", "no"], "kind": "mean", "dropped": 0},
    "many classes": {"epochs": 2, "labels": [f"c{i}" for i in range(DRAWN + 1)], "clips": 1000},
    "no head": {"epochs": 3, "heads": False},
}


@pytest.mark.parametrize("name", RUNS)
def test_every_run_has_every_section(name: str, made: Callable[[str], Made]) -> None:
    page, text = made(name).page, made(name).text
    assert [section["id"] for section in page.of("section")] == SECTIONS
    assert [link["href"] for link in page.of("a")] == [f"#{section}" for section in SECTIONS]
    assert text.startswith("<!doctype html>")
    assert "nan" not in page.text
    results = made(name).results
    assert f"{results['metric']['value']:.3f}" in page.text
    drawn = page.of("svg")
    assert all(attributes["role"] == "img" for attributes in drawn)
    curves = 2
    pooling = 0 if RUNS[name].get("kind") == "mean" else 1 if RUNS[name].get("channels") == 1 else 2
    classes = 0 if name in ("many classes", "no head") else 1
    assert len(drawn) == curves + pooling + classes


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_loaded_from_anywhere(name: str, made: Callable[[str], Made]) -> None:
    page, text = made(name).page, made(name).text
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for key, value in attributes.items():
            assert not key.startswith("on"), (tag, key)
            if key in ("href", "src", "xlink:href"):
                assert value is not None
                assert value.startswith("#"), (tag, key, value)
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", text)
    (policy,) = (meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("name", ["single", "predictions"])
def test_charts_have_the_pages_colours_and_ids_of_their_own(name: str, made: Callable[[str], Made]) -> None:
    page, text = made(name).page, made(name).text
    charts_only = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", charts_only)
    assert "var(--blue)" in charts_only
    assert "DejaVu" not in charts_only
    used = set(re.findall(r"var\(--(\w+)\)", text)) - {"font", "share"}
    assert used <= set(ROLES)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:url\(#|href="#)([^)"]+)', text):
        assert reference in ids


def test_both_themes_have_every_colour(made: Callable[[str], Made]) -> None:
    light, dark = made("single").text.split("@media (prefers-color-scheme: dark)")
    for role, (in_light, in_dark) in ROLES.items():
        assert f"--{role}: {in_light};" in light
        assert f"--{role}: {in_dark};" in dark


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("role", ["ink", "muted", "blue", "orange"])
def test_text_and_lines_stand_out_from_the_paper(role: str, theme: int) -> None:
    """WCAG 2.1: a contrast of 4.5 for text."""

    def luminance(color: str) -> float:
        channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for ground in ("paper", "panel"):
        dark, light = sorted(luminance(ROLES[name][theme]) for name in (role, ground))
        assert (light + 0.05) / (dark + 0.05) >= 4.5


class TestNumbers:
    def test_every_epoch(self, made: Callable[[str], Made]) -> None:
        page = made("single").page
        rows = page.table("epoch", "loss, training", "loss, held out", "macro F1", "accuracy", "learning rate")
        lines = (made("single").directory / "history.jsonl").read_text().splitlines()
        for row, record in zip(rows, map(json.loads, lines), strict=True):
            assert row[:5] == [
                str(record["epoch"]),
                f"{record['train']['loss']:.4f}",
                *(f"{record['valid'][key]:.4f}" for key in ("loss", "macro_f1", "accuracy")),
            ]

    @pytest.mark.usefixtures("undrawn")
    def test_terms_of_several_objectives(self, tmp_path: Path) -> None:
        both = (ObjectiveConfig(), ObjectiveConfig(kind="supcon", weight=0.5))
        page, _ = report(tmp_path, epochs=2, objectives=both)
        assert page.table("epoch", "loss, training", "loss, held out", "loss, classification", "loss, supcon")
        assert "classification and supcon" in page.text

    def test_many_losses_are_drawn_and_listed(self, tmp_path: Path) -> None:
        names = [f"what{i}" for i in range(5)]
        many = tuple(ObjectiveConfig(column=name) for name in names)
        page, text = report(tmp_path, epochs=2, objectives=many)
        assert "classification (5 times);" in re.sub(r"\s+", " ", page.text).replace(" ;", ";")
        assert page.table("epoch", "loss, training", "loss, held out", *(f"loss, {name}" for name in names))
        drawn = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
        assert [sum(f">{name}<" in chart for name in names) for chart in drawn].count(5) == 1

    def test_pooling(self, made: Callable[[str], Made]) -> None:
        page, results = made("single").page, made("single").results
        (entry,) = results["pooling"]
        start, end = page.table("", "mean", "smallest", "10th percentile", "median", "90th percentile", "largest")
        assert start == ["start", *["1.000"] * 6]
        values = [np.mean(entry["end"]), *np.quantile(entry["end"], [0, 0.1, 0.5, 0.9, 1])]
        assert end == ["end", *(f"{value:.3f}" for value in values)]
        course = [rows for rows in page.tables if rows[0][:2] == ["mean", "smallest"]]
        assert [len(rows) for rows in course] == [1 + 7], "the titles, the start and six epochs"

    def test_pooling_of_classes(self, made: Callable[[str], Made]) -> None:
        page, results = made("predictions").page, made("predictions").results
        (entry,) = results["pooling"]
        ends = {row[0]: row[2] for row in page.table("class", "start", "end")}
        assert ends == {label: f"{value:.3f}" for label, value in zip(ANIMALS, entry["end"], strict=True)}

    @pytest.mark.usefixtures("undrawn")
    def test_how_many_ended_as_averages(self, tmp_path: Path) -> None:
        directory = fake_run(tmp_path / "mymodel", epochs=2, channels=4)
        results = results_of(tmp_path)
        results["pooling"][0]["end"] = [0.0, 0.0, 0.5, 2.0]
        (directory / "results.json").write_text(json.dumps(results))
        assert "50.0% of the parameters ended there, as averages" in Page(write_report(directory).read_text()).text

    def test_confusion(self, made: Callable[[str], Made]) -> None:
        page, results = made("single").page, made("single").results
        matrix = np.array(results["heads"]["label"]["confusion"])
        (drawn,) = [svg for svg in re.findall(r"<svg.*?</svg>", made("single").text, re.DOTALL) if "Confusion" in svg]
        numbers = [int(text) for text in re.findall(r">(\d+)</text>", drawn)]
        assert numbers == [int(matrix[i, j]) for i, j in np.argwhere(matrix)]
        assert f"{matrix.trace()} of {matrix.sum()} clips held out are right" in page.text
        pairs = page.table("is", "taken for", "clips", "share of the class")
        counts = [int(row[2]) for row in pairs]
        wrong = np.sort((matrix - np.diag(np.diag(matrix))).ravel())[::-1]
        assert counts == [n for n in wrong[:15] if n]
        for name, other, count, share in pairs:
            i, j = ANIMALS.index(name), ANIMALS.index(other)
            assert i != j
            assert int(count) == matrix[i, j]
            assert share == f"{matrix[i, j] / matrix[i].sum():.1%}"

    @pytest.mark.usefixtures("undrawn")
    @pytest.mark.parametrize("multi_label", [False, True])
    def test_classes_the_worst_first(self, multi_label: bool, tmp_path: Path) -> None:
        directory = fake_run(tmp_path / "mymodel", epochs=2, multi_label=multi_label)
        results = results_of(tmp_path)
        scores = results["heads"]["label"]["per_class"]
        scores[3] |= {"clips": 0, "recall": None, "f1": None, "average_precision": None}
        (directory / "results.json").write_text(json.dumps(results))
        page = Page(write_report(directory).read_text())
        rows = page.table("class", "clips", "precision", "recall", "F1", "average precision")
        column = 5 if multi_label else 4
        assert rows[-1][0] == ANIMALS[3]
        assert rows[-1][3:] == ["-", "-", "-"]
        assert [row[column] for row in rows[:-1]] == sorted(row[column] for row in rows[:-1])
        assert {row[0]: row[2] for row in rows} == {s["label"]: f"{s['precision']:.3f}" for s in scores}

    def test_confused_clips(self, made: Callable[[str], Made]) -> None:
        page, results = made("single").page, made("single").results
        clips = results["heads"]["label"]["most_confused"]
        assert page.table("clip", "is", "taken for", "probability") == [
            [clip["key"], ", ".join(clip["true"]), clip["predicted"], f"{clip['probability']:.3f}"] for clip in clips
        ]

    @pytest.mark.usefixtures("undrawn")
    def test_data_and_what_was_left_out(self, tmp_path: Path) -> None:
        page, _ = report(tmp_path, epochs=2, dropped=120)
        data = results_of(tmp_path)["data"]
        assert page.table("split", "clips", "groups", "hours") == [
            [name, str(split["clips"]), str(split["groups"]), f"{split['hours']:.2f}"]
            for name, split in data["splits"].items()
        ]
        assert len(page.table("class", "train", "valid")) == len(ANIMALS)
        assert len(page.table("clip", "why")) == 50
        assert "120 left out" in page.text
        assert "and 70 more, in results.json" in page.text
        assert data["notes"][0] in page.text

    @pytest.mark.usefixtures("undrawn")
    def test_the_configuration(self, tmp_path: Path) -> None:
        page, _ = report(tmp_path, epochs=2, lr=0.0123)
        written = (tmp_path / "mymodel" / "run.toml").read_text()
        shown = "".join(page.texts)
        assert written.strip() in shown
        assert "poolembed train --config run.toml" in shown


class TestHostile:
    @pytest.mark.parametrize("multi_label", [False, True])
    def test_labels_and_keys(self, multi_label: bool, tmp_path: Path, made: Callable[[str], Made]) -> None:
        harmless = made("predictions" if multi_label else "single").page
        page, text = report(
            tmp_path,
            epochs=6,
            labels=HOSTILE,
            column=HOSTILE[1],
            data=HOSTILE[0],
            multi_label=multi_label,
            kind="gem" if multi_label else "autopool",
            pool="predictions" if multi_label else "features",
        )
        assert {tag for tag, _ in page.tags} == {tag for tag, _ in harmless.tags}
        every = {key for _, attributes in page.tags for key in attributes}
        assert every == {key for _, attributes in harmless.tags for key in attributes}
        names = {row[0] for row in page.table("class", "clips")}
        assert names == {*HOSTILE[:6], "nul\\x00 line\\nbreak \\xff", "\\u202eright to left", *HOSTILE[8:]}
        in_charts = re.findall(r"<text[^>]*>(.*?)</text>", text, re.DOTALL)
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in in_charts
        assert "$\\frac{$" in in_charts
        assert 'style="fill: #01fe01"' in in_charts

    @pytest.mark.usefixtures("undrawn")
    def test_the_name_of_the_directory(self, tmp_path: Path) -> None:
        name = os.fsdecode(b"<b>&\xff")
        page = Page(write_report(fake_run(tmp_path / name, epochs=1)).read_text())
        assert page.texts[page.texts.index("<b>&\\xff")]
        assert not page.of("b")

    def test_settings_of_the_users_matplotlib(self, tmp_path: Path) -> None:
        import matplotlib as mpl

        with mpl.rc_context({"text.usetex": True, "axes.facecolor": "red", "svg.fonttype": "path"}):
            _, text = report(tmp_path, epochs=1)
        assert "<text" in text
        assert "ff0000" not in text


class TestFiles:
    def test_again_is_the_same(self, tmp_path: Path) -> None:
        _, first = report(tmp_path, epochs=2)
        assert write_report(tmp_path / "mymodel").read_text() == first
        assert sorted(path.name for path in (tmp_path / "mymodel").iterdir()) == [
            "history.jsonl", "report.html", "results.json", "run.toml",
        ]  # fmt: skip

    @pytest.mark.usefixtures("undrawn")
    @pytest.mark.parametrize("name", ["history.jsonl", "results.json"])
    @pytest.mark.parametrize("content", [None, b"{", b"\xff", b'{"metric": 3}\n'])
    def test_damaged(self, name: str, content: bytes | None, tmp_path: Path) -> None:
        directory = fake_run(tmp_path / "mymodel", epochs=2)
        (directory / name).unlink()
        if content is not None:
            (directory / name).write_bytes(content)
        with pytest.raises(OutputError, match="mymodel"):
            write_report(directory)
        assert not (directory / "report.html").exists()

    def test_no_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"run\.toml"):
            write_report(tmp_path)

    @pytest.mark.usefixtures("undrawn")
    def test_a_disk_that_is_full_leaves_the_report_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = fake_run(tmp_path / "mymodel", epochs=1)
        (directory / "report.html").write_text("before")

        def full(self: Path, *_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(OutputError, match=r"report\.html: No space left on device") as caught:
            write_report(directory)
        assert caught.value.hint is not None
        monkeypatch.undo()
        assert (directory / "report.html").read_text() == "before"
