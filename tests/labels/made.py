"""Clips made up for the tests of units and divisions."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from poolembed.labels import Clip


def clip(name: str, *labels: str, path: str | None = None, **more: str | None) -> Clip:
    return Clip(path=path or f"/clips/{name}", key=name, labels={"label": labels}, **more)  # type: ignore[arg-type]


def many(label: str, number: int, **more: str | None) -> list[Clip]:
    return [clip(f"{label}{i:03}", label, **more) for i in range(number)]


labelled = st.builds(
    lambda labels, group, content, file: (labels, group, content, file),
    st.frozensets(st.sampled_from("abcd"), max_size=3),
    st.none() | st.sampled_from("uvwxyz"),
    st.none() | st.integers(0, 12).map(str),
    st.none() | st.integers(0, 12).map(str),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Clip], list[str | None]]:
    """Clips with any labels, groups, shared files and copies of audio."""
    rows = draw(st.lists(labelled, min_size=2, max_size=40))
    clips = [
        clip(f"k{number}", *sorted(labels), group=group, path=file and f"/clips/{file}")
        for number, (labels, group, _, file) in enumerate(rows)
    ]
    return clips, [content for _, _, content, _ in rows]


def inseparable(clips: Sequence[Clip], content: Sequence[str | None]) -> list[set[int]]:
    """A slow reference: sets of clips that share a group, audio, or without a group a file, merged until none do."""
    sets = [{index} for index in range(len(clips))]

    def alike(i: int, j: int) -> bool:
        groups = clips[i].group, clips[j].group
        same_file = groups == (None, None) and clips[i].path == clips[j].path
        return same_file or (groups[0] == groups[1] is not None) or (content[i] == content[j] is not None)

    for i in range(len(clips)):
        for j in range(i):
            if alike(i, j):
                one = next(each for each in sets if i in each)
                other = next(each for each in sets if j in each)
                if one is not other:
                    one |= other
                    sets.remove(other)
    return sets


def labels_of(clips: Sequence[Clip], indices: Sequence[int]) -> set[str]:
    return {label for index in indices for label in clips[index].labels["label"]}
