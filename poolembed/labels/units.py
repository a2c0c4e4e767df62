"""Clips that must stay together, put in splits so that each split has its share of every label.

Units are put in splits one by one, large ones first, each where Pearson's chi-square of the splits' counts against
their shares stays smallest. With a_sl the clips of label l in split s, n_l all its clips and w_s the share of s, it is

    sum_sl (a_sl - w_s·n_l)² / (w_s·n_l)  =  sum_sl a_sl² / (w_s·n_l)  -  sum_l n_l

and a unit of c_l clips of each label raises it by sum_l 2·c_l·(a_sl + c_l / 2) / (w_s·n_l). Rare labels weigh as much
as others. "Any clip" counts as one more label, which keeps the splits to size; clips without labels have only that one.
Like iterative stratification (Sechidis et al. 2011, On the stratification of multi-label data) it takes one pass.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from poolembed.labels.clips import Clip

ANY = ""
"""Stands for "any clip" among the labels; read labels are never empty."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Clips that lie in one split.

    Attributes:
        clips: their indices, ascending.
        tally: label and number of clips with it, sorted; the first is `ANY` and counts all.
    """

    clips: tuple[int, ...]
    tally: tuple[tuple[str, int], ...]


def units_of(
    clips: Sequence[Clip], content: Sequence[str | None] | None, indices: Sequence[int], column: str | None, seed: int
) -> list[Unit]:
    """What must stay together: clips of one group, of the same audio, and without a group those of the same file.

    Excerpts of one file are alike, and may overlap; where they should be taken apart, a group for each says so.

    Args:
        clips: all clips.
        content: per clip, a hash of its decoded audio; None where it is not known.
        indices: the clips to look at.
        column: the labels to count; None for none.
        seed: of the order of equally large units.

    Returns:
        Large ones first, whatever the order of the clips.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(token: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(token, token)
        while parent[token] != token:
            parent[token] = parent[parent[token]]
            token = parent[token]
        return token

    home = []
    for index in indices:
        clip = clips[index]
        home.append(("group", clip.group) if clip.group is not None else ("file", os.path.normpath(clip.path)))
        audio = content[index] if content is not None else None
        if audio is not None:
            parent[root(home[-1])] = root(("audio", audio))
    members = defaultdict(list)
    for index, token in zip(indices, home, strict=True):
        members[root(token)].append(index)

    def rank(unit: Unit) -> tuple[int, bytes, str]:
        key = min(clips[index].key for index in unit.clips)
        text = f"{seed}\0{key}".encode("utf-8", "surrogatepass")
        return -len(unit.clips), hashlib.blake2b(text, digest_size=8).digest(), key

    return sorted((_unit(clips, sorted(each), column) for each in members.values()), key=rank)


def _unit(clips: Sequence[Clip], indices: list[int], column: str | None) -> Unit:
    labels = Counter(label for index in indices for label in (clips[index].labels[column] if column else ()))
    return Unit(tuple(indices), ((ANY, len(indices)), *sorted(labels.items())))


def assign(units: Sequence[Unit], shares: Sequence[float], *, must_have: int | None = None) -> list[int]:
    """Put units in splits; see the head of this module.

    Afterwards units move, the smallest first, until no split is empty and each label is in at least two splits, as far
    as that can be had: three units with labels ab, bc and ca cannot be in two splits with every label in both.

    Args:
        units: from `units_of`; at least one per split, and for what is promised of labels at least two per label.
        shares: of two splits, or equal shares of more; they add up to 1.
        must_have: a split that has every label, whatever the others lack.

    Returns:
        The split of each unit.
    """
    table = Assignment(units, shares)
    for number in range(len(units)):
        table.put(number, table.ranked(number)[0])
    if must_have is not None:
        for label, holders in table.holders.items():
            if must_have not in table.present[label]:
                table.put(holders[-1], must_have)
    for label, holders in sorted(table.holders.items(), key=lambda item: (len(item[1]), item[0])):
        for number in reversed(holders):
            if len(table.present[label]) > 1:
                break
            target = next((split for split in table.ranked(number) if table.can_move(number, split)), None)
            if target is not None:
                table.put(number, target)
    return [table.split[number] for number in range(len(units))]


class Assignment:
    """Who is where, and what each split has.

    Attributes:
        split: of each unit that has one.
        holders: label -> units with it, in order.
        present: label -> split -> units with it there, never 0.
    """

    def __init__(self, units: Sequence[Unit], shares: Sequence[float]) -> None:
        self.split: dict[int, int] = {}
        self.holders: dict[str, list[int]] = defaultdict(list)
        self.present: dict[str, Counter[int]] = defaultdict(Counter)
        self._units = units
        self._total: Counter[str] = Counter()
        for number, unit in enumerate(units):
            for label, count in unit.tally:
                self._total[label] += count
                self.holders[label].append(number)
        self._shares = shares
        self._counts: list[Counter[str]] = [Counter() for _ in shares]

    def ranked(self, number: int) -> list[int]:
        """The splits, by how much a unit raises chi-square there; of equals the first comes first."""
        tally = self._units[number].tally

        def growth(split: int) -> float:
            counts, share = self._counts[split], self._shares[split]
            return sum(count * (counts[label] + count / 2) / (share * self._total[label]) for label, count in tally)

        return sorted(range(len(self._shares)), key=growth)

    def put(self, number: int, split: int) -> None:
        """Put a unit in a split, from where it is."""
        before = self.split.get(number)
        self.split[number] = split
        for label, count in self._units[number].tally:
            self._counts[split][label] += count
            self.present[label][split] += 1
            if before is not None:
                self._counts[before][label] -= count
                self.present[label][before] -= 1
                self.present[label] += Counter()  # drops what is 0

    def can_move(self, number: int, target: int) -> bool:
        """Whether a unit can move to a split other than its own, with none of its labels then in that split alone."""
        home = self.split[number]
        return target != home and all(
            self.present[label][home] > 1 or self.present[label].keys() - {home, target}
            for label, _ in self._units[number].tally
        )
