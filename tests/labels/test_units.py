"""What goes together is found, and put in splits by chi-square."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from poolembed.labels import Clip, grouped_folds
from poolembed.labels.units import ANY, Assignment, Unit, assign, units_of
from tests.labels.made import clip, inseparable, tables


@given(tables(), st.integers(0, 5))
def test_units_are_what_cannot_be_taken_apart(table: tuple[list[Clip], list[str | None]], seed: int) -> None:
    clips, content = table
    units = units_of(clips, content, range(len(clips)), "label", seed)
    assert sorted(sorted(unit.clips) for unit in units) == sorted(map(sorted, inseparable(clips, content)))
    for unit in units:
        counts = Counter(label for index in unit.clips for label in clips[index].labels["label"])
        assert dict(unit.tally) == {ANY: len(unit.clips), **counts}


@given(tables(), st.lists(st.floats(0.1, 1), min_size=2, max_size=4))
def test_each_unit_goes_where_chi_square_stays_smallest(
    table: tuple[list[Clip], list[str | None]], weights: list[float]
) -> None:
    """Against Pearson's chi-square computed from its definition, in fractions."""
    clips, content = table
    shares = [weight / sum(weights) for weight in weights]
    units = units_of(clips, content, range(len(clips)), "label", 0)
    total: Counter[str] = Counter()
    for unit in units:
        total.update(dict(unit.tally))
    splits: list[Counter[str]] = [Counter() for _ in shares]

    def chi_square() -> Fraction:
        expected = {(s, label): Fraction(share) * total[label] for s, share in enumerate(shares) for label in total}
        return sum(((splits[s][label] - e) ** 2 / e for (s, label), e in expected.items()), Fraction(0))

    board = Assignment(units, shares)
    for number, unit in enumerate(units * 2):  # the second time, units move
        results = []
        for split in splits:
            split.update(dict(unit.tally))
            results.append(float(chi_square()))
            split.subtract(dict(unit.tally))
        ranked = board.ranked(number % len(units))
        np.testing.assert_allclose([results[split] for split in ranked], sorted(results), rtol=1e-9, atol=1e-9)
        target = ranked[number // len(units)]
        if number >= len(units):
            splits[board.split[number % len(units)]].subtract(dict(unit.tally))
        board.put(number % len(units), target)
        splits[target].update(dict(unit.tally))


def test_stratified_as_well_as_scikit_learn() -> None:
    """On grouped data no worse, by chi-square over folds and labels, than StratifiedGroupKFold, mean of five draws."""
    from sklearn.model_selection import StratifiedGroupKFold

    ours: list[float] = []
    theirs: list[float] = []
    for seed in range(5):
        draw = np.random.default_rng(seed)
        labels = draw.choice(6, size=400, p=[0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
        groups = draw.integers(0, 80, size=400)
        clips = [clip(f"{i}", f"l{labels[i]}", group=f"g{groups[i]}") for i in range(400)]
        fold = np.array(grouped_folds(clips, None, folds=5, seed=seed, column="label"))
        other = np.zeros(400, int)
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for number, (_, test) in enumerate(splitter.split(labels, labels, groups)):
            other[test] = number
        for numbers, scores in ((fold, ours), (other, theirs)):
            counts = np.zeros((5, 6))
            np.add.at(counts, (numbers, labels), 1)
            expected = counts.sum(0) / 5
            scores.append(float(((counts - expected) ** 2 / expected).sum()))
    assert np.mean(ours) <= np.mean(theirs)


@st.composite
def tallies(draw: st.DrawFn) -> list[Unit]:
    """Units of very different sizes, each label in two or more of them."""
    held = draw(st.lists(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 30), max_size=3), min_size=4))
    alone = Counter(label for each in held for label in each)
    held += [{label: draw(st.integers(1, 30))} for label, number in alone.items() if number == 1]
    units = []
    for each in held:
        size = max([1, *each.values()])
        units.append(Unit(tuple(range(size)), ((ANY, size), *sorted(each.items()))))
    return sorted(units, key=lambda unit: -len(unit.clips))


def homes(units: Sequence[Unit], splits: Sequence[int]) -> dict[str, set[int]]:
    found = defaultdict(set)
    for unit, split in zip(units, splits, strict=True):
        for label, _ in unit.tally:
            found[label].add(split)
    return found


two_shares = st.floats(0.02, 0.98).map(lambda share: [share, 1 - share])


@given(tallies(), two_shares | st.integers(3, 4).map(lambda number: [1 / number] * number), st.booleans())
def test_no_unit_that_could_mend_a_split_is_left(units: list[Unit], shares: list[float], must_have: bool) -> None:
    """No split is empty, the split that must have all labels does, and nothing is gained by moving one more unit."""
    must_have = must_have and len(shares) == 2
    splits = assign(units, shares, must_have=0 if must_have else None)
    found = homes(units, splits)
    assert found[ANY] == set(range(len(shares)))
    if must_have:
        assert all(0 in where for where in found.values())
    one_sided = {label for label, where in found.items() if len(where) == 1}
    for number, unit in enumerate(units):
        if one_sided.isdisjoint(label for label, _ in unit.tally):
            continue
        for other in set(range(len(shares))) - {splits[number]}:
            moved = homes(units, [*splits[:number], other, *splits[number + 1 :]])
            worse = {label for label, where in moved.items() if len(where) == 1} - one_sided
            assert worse or len(moved[ANY]) < len(shares) or (must_have and any(0 not in w for w in moved.values()))


def test_the_smallest_unit_moves() -> None:
    """Label a first goes to one split altogether; of its three units the one with the fewest clips is moved."""

    def unit(size: int, **labels: int) -> Unit:
        return Unit(tuple(range(size)), ((ANY, size), *labels.items()))

    units = [unit(500, b=500), unit(5, a=5), unit(3, a=3), unit(1, a=1), unit(1, b=1)]
    assert assign(units, (0.99, 0.01), must_have=0)[:4] == [0, 0, 0, 1]
    assert assign(units, (0.01, 0.99), must_have=0)[:4] == [1, 1, 1, 0]
