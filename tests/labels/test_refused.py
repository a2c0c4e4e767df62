"""What is wrong with a table is said with its line, and with the way out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.labels.files import ROWS, Write, refused, save


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "is empty", "header"),
        (" \n \n", "is empty", "header"),
        ("path,label\n", "has no rows", "a row for each clip"),
        ("a.wav,dog\nb.wav,cat\n", "has no header: it begins with 'a.wav,dog'", "path,label"),
        ("Path,label\na.wav,x\n", "no column 'path'; it has 'Path', 'label'", "rename 'Path' to 'path'"),
        ("filepath,label\na.wav,x\n", "no column 'path'", "rename 'filepath' to 'path'"),
        ("file,label\na.wav,x\n", "no column 'path'; it has 'file', 'label'", "rename the one that is it"),
        ("path,lable\na.wav,x\n", "no column 'label'; it has 'path', 'lable'", "rename 'lable' to 'label'"),
        ("path, label\na.wav,x\n", "no column 'label'", "rename ' label' to 'label'"),
        ("path\na.wav\n", "no column 'label'", "add a column 'label'"),
        ("path;label\na.wav;x\n", "has semicolons between its cells", "commas in a .csv file"),
        ("path\tlabel\na.wav\tx\n", "has tabs between its cells", "tabs in a .tsv file"),
        ("path,label,label\na.wav,x,y\n", "two columns label", "rename"),
        ("path,label\na.wav,x,y\n", "line 2: 3 cells, where the header has 2", "comma in double quotes"),
        ("path,label\na.wav,x\nb.wav\n", "line 3: 1 cell, where the header has 2", "double quotes"),
        ('path,label\n"a.wav,x\nb.wav,y\n', "line 2: unexpected end of data", "quotes come in pairs"),
        ('path,label\n"a\nb.wav",x\n"c"d,y\n', "line 4: ',' expected after '\"'", "quotes come in pairs"),
        ("path,label\na.wav,x\n,y\n", "line 3: no path", "column path"),
        ("path,label,start\na.wav,x,1.5s\n", "line 2: start is '1.5s'", "a number of seconds"),
        ('path,label,start\na.wav,x,"1,5"\n', "line 2: start is '1,5'", "such as 2.5"),
        ("path,label,end\na.wav,x,inf\n", "line 2: end is 'inf'", "a number of seconds"),
        ("path,label,end\na.wav,x,nan\n", "line 2: end is 'nan'", "a number of seconds"),
        ("path,label,start\na.wav,x,-1\n", "line 2: start is -1; the first second is 0", ""),
        ("path,label,start,end\n\na.wav,x,3,2.5\n", "line 3: end is 2.5, which is not after start, 3", ""),
        ("path,label,end\na.wav,x,0\n", "line 2: end is 0, which is not after start, 0", ""),
        ("path,label,split\na.wav,x,dev\n", "line 2: split is 'dev'", "train, valid, validation, val, test"),
        ("path,label\na.wav,x\nb.wav,x\n", "only the label 'x' in column 'label'", "two labels"),
        ("path,label\na.wav,\nb.wav, ;\n", "has no row with a label", "fill in"),
        (
            "path,label\nno.wav,x\nnot.wav,y\n",
            "none of its 2 clips can be used: 2 not there",
            "relative paths are taken",
        ),
        (
            "path,label\nno.wav,x\na.wav,\n",
            "none of its 2 clips can be used: 1 not there, 1 without a label",
            "relative",
        ),
    ],
)
def test_tables_that_are_refused(write: Write, text: str, message: str, hint: str) -> None:
    error = refused(write(text))
    assert message in error.message
    assert hint in (error.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n", "no column 'path'"),
        ('{"path": "a.wav", "label": "x"}\n\n{"label": "x"}\n', "line 3: no path"),
        ('{"path": "a.wav", "label": "x"}\n{"path": 3, "label": "x"}\n', "line 2: no path"),
        (
            '{"path": "a.wav", "label": "x"}\n{"path": "b.wav", "label": "y"\n',
            "line 2: not JSON: Expecting ',' delimiter",
        ),
        ('["a.wav", "x"]\n', "line 1: not an object"),
        ('{"path": "a.wav", "label": {"x": 1}}\n', "line 1: label is an object"),
        ('{"path": "a.wav", "label": [["x"]]}\n', "line 1: label is a list"),
        ('{"path": "a.wav", "label": "x", "group": ["x"]}\n', "line 1: group is a list"),
        ('{"path": "a.wav", "label": "x", "start": true}\n', "line 1: start is True"),
        ('{"path": "a.wav", "label": "x", "end": [1]}\n', "line 1: end is a list"),
        ('{"path": "a.wav", "label": "x", "end": 1' + "0" * 400 + "}\n", "line 1: end is 1000"),
        ('{"path": "a.wav", "label": "x", "end": 1' + "0" * 5000 + "}\n", "line 1: not JSON that can be read"),
        ("[" * 100_000 + "\n", "line 1: not JSON"),
        ("", "is empty"),
    ],
)
def test_json_lines_that_are_refused(folder: Path, text: str, message: str) -> None:
    (folder / "t.jsonl").write_text(text)
    assert message in refused(folder / "t.jsonl").message


def test_parquet_that_is_refused(folder: Path) -> None:
    path = folder / "t.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    assert "is not a Parquet file" in refused(path).message
    assert "no column 'path'" in refused(save(path, [{"label": "x"}])).message
    rows = [{"path": "a.wav", "label": "x", "end": 1}, {"path": "b.wav", "label": "y", "end": -1}]
    assert "row 2: end is -1" in refused(save(path, rows)).message
    assert "row 1: label is bytes" in refused(save(path, [{"path": "a.wav", "label": b"x"}])).message
    save(path, ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    assert "damaged" in refused(path).message


def test_parquet_without_pyarrow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder / "t.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    error = refused(folder / "t.parquet")
    assert "without pyarrow" in error.message
    assert "pip install '.[parquet]'" in (error.hint or "")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings(folder: Path, suffix: str, encoding: str) -> None:
    (folder / f"t{suffix}").write_bytes("path,label\na.wav,x\nb.wav,caf\xe9\n".encode(encoding))
    error = refused(folder / f"t{suffix}")
    assert (
        "line 3: not UTF-8 (byte 0xe9)" if encoding == "latin-1" else "line 1: not UTF-8 (byte 0xff)"
    ) in error.message
    assert "save the table as UTF-8" in (error.hint or "")


def test_sources_that_are_neither(folder: Path) -> None:
    assert "no such file or folder" in refused(folder / "no.csv").message
    assert "neither a folder nor a table" in refused(folder / "a.wav").message
    (folder / "t.json").write_text("[]")
    assert ".jsonl" in (refused(folder / "t.json").hint or "")
