"""A map, from a collection to the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poolembed.errors import OutputError
from poolembed.files.claims import working, working_folder
from poolembed.files.reading import read_regular
from poolembed.files.writing import replacing, writing
from poolembed.map.layout import lay_out
from poolembed.map.naming import name_groups
from poolembed.map.page import render
from poolembed.map.songs import describe
from poolembed.progress import Progress, silent

if TYPE_CHECKING:
    from poolembed.search.collection import Collection


@dataclass(frozen=True)
class Made:
    """A map that was made.

    Attributes:
        path: of the page.
        size: its bytes.
        songs: on it.
        missing: paths of songs that are not where the collection says; they are on the map, but silent.
        method: how the songs were laid out.
    """

    path: Path
    size: int
    songs: int
    missing: list[str]
    method: str


def make_map(
    collection: Collection,
    output: Path,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Made:
    """Write the map of a collection; the same collection and files always give the same page, to the byte.

    Args:
        collection: at least three songs.
        output: the HTML file.
        overwrite: replace a file that is there.
        progress: told what is being done.

    Raises:
        OutputError: the page cannot be written, or something is there already.
        VectorsError: there are too few songs, or vectors are zero or not finite.
    """
    check_output(output, overwrite=overwrite)
    layout = lay_out(collection, progress)
    progress("reading tags", 0, 0)
    songs = describe(collection, output)
    model = f"Model {collection.model.name}, " if collection.model else ""
    heard = name_groups(collection, layout.groups)
    made = f"{model}{collection.size} numbers a song, laid out by {layout.method}."
    page = render(songs, layout, made, heard).encode()
    way_on = "the map that was there is untouched"
    with writing(output, way_on):
        output.parent.mkdir(parents=True, exist_ok=True)
        with working(output, way_on) as work:
            if overwrite or not output.exists():
                with replacing(output, work) as part:
                    part.write_bytes(page)
            elif read_regular(output) != page:  # not that of a run that was killed before it tidied up
                raise _there(output)
    missing = [collection.paths[row] for row in songs.missing]
    return Made(output, len(page), len(songs.names), missing, layout.method)


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse to write where something is.

    Raises:
        OutputError: it is a directory, or a file that is not to be overwritten.
    """
    if output.is_dir():
        raise OutputError(f"{output} is a directory", hint="-o names the HTML file to write")
    if output.exists() and not overwrite and not working_folder(output).exists():
        raise _there(output)


def _there(output: Path) -> OutputError:
    return OutputError(f"{output} is there already", hint="--overwrite replaces it; -o with another name leaves it")
