"""The engine: exact whatever the batch, the threads and the company; and it always ends, whatever goes wrong."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from poolembed.bundle import load_bundle
from poolembed.embed import engine as engine_module
from poolembed.embed.device import Runner
from poolembed.embed.engine import LOOKAHEAD, READY, Engine
from poolembed.embed.merging import SongMerger
from poolembed.embed.song import Embedded, Failed, Outcome
from poolembed.embed.windows import WindowShape
from poolembed.errors import AudioError, PoolembedError, UsageError
from poolembed.nn.config import PoolingConfig
from poolembed.nn.model import SongModel
from tests.conftest import HOP, POOLINGS, RATE, noise, pools_of, slow_windows, tiny_config, tiny_network
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.usefixtures("no_new_threads")

WINDOW = 32 * HOP
NETWORK = tiny_network()
LENGTHS = (1, WINDOW // 2, WINDOW - 1, WINDOW, 5 * WINDOW + 77, 40 * WINDOW + 1234, 3, 2 * WINDOW, 9 * WINDOW)
SONGS = [(noise(length, seed), RATE) for seed, length in enumerate(LENGTHS)]

Song = tuple[NDArray[np.float32], int]


class OffCpu(TorchFunctionMode):
    """Lets tensors that are sent to an accelerator stay where they are."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.to and args[1:] == (torch.device("mps"),):
            return args[0]
        return func(*args, **kwargs or {})


class OffCpuRunner(Runner):
    """The runner as it is for a device that is not the CPU, on the CPU."""

    def start(self, batch: Any) -> Callable[[], Tensor]:
        with OffCpu():
            return super().start(batch)


@pytest.fixture(params=["cpu", "other device"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The CPU, and a pretended other device, which has a thread and a queue of its own."""
    if request.param == "cpu":
        return torch.device("cpu")
    monkeypatch.setattr(engine_module, "Runner", OffCpuRunner)
    return torch.device("mps")


def make_engine(
    device: torch.device | None = None,
    *,
    head: SongModel = NETWORK,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 8,
    workers: int = 2,
    **options: Any,
) -> Engine:
    network = head.for_inference(torch.device("cpu"), dtype)
    network.device = device or torch.device("cpu")
    return Engine(head.requires_grad_(False), network, batch_size=batch_size, workers=workers, **options)


def embeddings(outcomes: Iterable[Outcome]) -> dict[int, NDArray[np.float32]]:
    found = {}
    for outcome in outcomes:
        assert isinstance(outcome, Embedded), outcome
        found[outcome.index] = outcome.embedding
    return found


def embed(engine: Engine, songs: Iterable[Any] = SONGS, **options: Any) -> NDArray[np.float32]:
    found = embeddings(engine.run(songs, **options))
    return np.stack([found[index] for index in range(len(found))])


def brute_force(network: SongModel, song: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of every window by itself, laid end to end, pooled in one piece in float64."""
    shape = WindowShape.of(network.config)
    windows = slow_windows(song, shape)
    total = 1 + len(song) // shape.hop_length
    with torch.inference_mode():
        per_window = [network.features(torch.from_numpy(samples).unsqueeze(0)) for samples, _ in windows]
        state = []
        for pool, pieces in zip(pools_of(network), zip(*per_window, strict=True), strict=True):
            part = torch.cat(pieces, dim=-1).double()
            reduction = len(windows) * shape.frames // part.shape[-1]
            state.append(tuple(pool.fold(part[..., : -(-total // reduction)])))
        vector: NDArray[np.float32] = network.finalize(state)[0].numpy()
    return vector


@cache
def each_alone(dtype: torch.dtype) -> NDArray[np.float32]:
    """Every song embedded by itself."""
    engine = make_engine(dtype=dtype, batch_size=8, workers=1)
    return np.concatenate([embed(engine, [song]) for song in SONGS])


class TestExactness:
    @pytest.mark.parametrize("kind", POOLINGS)
    def test_every_pooling_equals_brute_force(self, kind: str, bundles: Path) -> None:
        head = load_bundle(bundles / kind).network
        engine = make_engine(head=head)
        long = noise(137 * WINDOW + 321, seed=3)
        found = embed(engine, [*SONGS, (long, RATE)])
        expected = np.stack([brute_force(head, song) for song, _ in [*SONGS, (long, RATE)]])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=0, atol=1e-6)
        assert len({vector.tobytes() for vector in found}) == len(found)

    @pytest.mark.parametrize("parts", [{"mid_levels": False}, {"mel_statistics": False}, {"embedding_size": 1}])
    @pytest.mark.parametrize("scope", ["scalar", "channel"])
    def test_every_part_equals_brute_force(self, parts: dict[str, Any], scope: Any) -> None:
        head = tiny_network(tiny_config(PoolingConfig(kind="gem", scope=scope), **parts))
        expected = np.stack([brute_force(head, song) for song, _ in SONGS])
        np.testing.assert_allclose(embed(make_engine(head=head)), expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("value", [0.0, 0.25, 1e-30])
    def test_nothing_but_one_value(self, value: float) -> None:
        song = np.full(30 * WINDOW, value, np.float32)
        (found,) = embed(make_engine(), [(song, RATE)])
        assert np.isfinite(found).all()
        # A mel band that does not move has standard deviation 0, of which squares in float32 know only three digits.
        np.testing.assert_allclose(found, brute_force(NETWORK, song), rtol=0, atol=5e-4)

    @pytest.mark.parametrize("seconds", [None, 1.0])
    def test_windows_of_silence_have_no_part_in_a_song_that_has_others(self, seconds: float | None) -> None:
        """How long it lasts is nothing to the song's vector; resampled dither of 16 bits is silence, more is not."""
        song = noise(3 * WINDOW)

        def around(windows: int, level: float) -> NDArray[np.float32]:
            silence = level * np.random.default_rng(0).choice([-1, 0, 1], windows * WINDOW)
            return np.concatenate([silence, song, silence, song, silence], dtype=np.float32)

        songs = [(around(windows, level), RATE) for windows in (2, 9) for level in (0, 2**-14, 2**-10)]
        outcomes = list(make_engine().run(songs, seconds=seconds))
        vectors = [outcome.embedding for outcome in outcomes if isinstance(outcome, Embedded)]
        assert len(vectors) == len(songs)
        np.testing.assert_allclose(vectors[3], vectors[0], rtol=0, atol=5e-5)
        np.testing.assert_allclose(vectors[4], vectors[0], rtol=0, atol=5e-5)
        assert vectors[5] @ vectors[2] < 0.99
        for (samples, _), outcome in zip(songs, outcomes, strict=True):
            if seconds and isinstance(outcome, Embedded) and outcome.segments:
                assert len(outcome.segments.embeddings) == -(-len(samples) // RATE)  # those of silence too

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize(
        ("batch_size", "workers", "ordered"), [(1, 4, False), (3, 1, False), (3, 4, True), (8, 4, False), (64, 1, True)]
    )
    def test_company_does_not_matter(
        self, dtype: torch.dtype, batch_size: int, workers: int, ordered: bool, device: torch.device
    ) -> None:
        alone = each_alone(dtype)
        found = embed(make_engine(device, dtype=dtype, batch_size=batch_size, workers=workers), ordered=ordered)
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-5)

    def test_a_second_run_gives_the_same_bits(self, device: torch.device) -> None:
        engine = make_engine(device, workers=4)
        first, second = embed(engine), embed(engine, ordered=False)
        assert first.tobytes() == second.tobytes()

    def test_reduced_precision_is_close(self) -> None:
        full, reduced = embed(make_engine()), embed(make_engine(dtype=torch.bfloat16))
        assert not np.array_equal(full, reduced)
        assert (full * reduced).sum(axis=1).min() >= 0.999

    @pytest.mark.parametrize("batch_size", [1, 5])
    def test_stretches_beside_the_song(self, batch_size: int, device: torch.device) -> None:
        plain = embed(make_engine())
        engine = make_engine(device, batch_size=batch_size)
        for index, outcome in enumerate(engine.run(SONGS, seconds=0.5)):
            assert isinstance(outcome, Embedded)
            assert outcome.segments is not None
            np.testing.assert_allclose(outcome.embedding, plain[index], rtol=0, atol=1e-6)
            # The 0.5 s that start at 0.5 i are a song of their own, but for the context of the edge frames.
            assert len(outcome.segments.times) == len(outcome.segments.embeddings)
            np.testing.assert_allclose(np.diff(outcome.segments.times), 0.5)
            np.testing.assert_allclose(np.linalg.norm(outcome.segments.embeddings, axis=1), 1, atol=1e-6)

    def test_stretches_are_the_same_bits_in_any_batch(self, device: torch.device) -> None:
        def segments(engine: Engine) -> list[bytes]:
            return [o.segments.embeddings.tobytes() for o in engine.run(SONGS, seconds=0.1)]  # type: ignore[union-attr]

        assert segments(make_engine(device, batch_size=8, workers=4)) == segments(make_engine(batch_size=8, workers=1))

    def test_durations_and_order(self, device: torch.device) -> None:
        outcomes = list(make_engine(device, workers=4).run(SONGS))
        assert [outcome.index for outcome in outcomes] == list(range(len(SONGS)))
        assert [outcome.duration for outcome in outcomes if isinstance(outcome, Embedded)] == [
            pytest.approx(length / RATE) for length in LENGTHS
        ]

    def test_all_audio_is_reported(self, device: torch.device) -> None:
        heard: list[float] = []
        list(make_engine(device, workers=4).run(SONGS, on_audio=heard.append))
        assert sum(heard) == pytest.approx(sum(1 + length // HOP for length in LENGTHS) * HOP / RATE)

    def test_a_loud_song_is_named_and_not_nan(self) -> None:
        loud = (np.full(WINDOW, 3e38, np.float32), RATE)
        outcomes = list(make_engine().run([SONGS[4], loud, SONGS[5]]))
        assert isinstance(outcomes[1], Failed)
        assert "finite" in outcomes[1].reason and "weights" in outcomes[1].reason
        alone = embed(make_engine(), [SONGS[4], SONGS[5]])
        for outcome, vector in zip((outcomes[0], outcomes[2]), alone, strict=True):
            assert isinstance(outcome, Embedded)
            np.testing.assert_allclose(outcome.embedding, vector, rtol=0, atol=1e-6)


class FakeSong:
    """Stands in for a file: yields blocks, and does whatever a test wants at any of them."""

    def __init__(self, blocks: Iterable[NDArray[np.float32]], duration: float, note: str | None = None) -> None:
        self._blocks = blocks
        self.duration = duration
        self.note = note
        self.encoding = None
        self.closed = False

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        yield from self._blocks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.closed = True


Behaviour = Callable[[str], Iterable[NDArray[np.float32]]]


class Library:
    """Songs that exist only as functions of their names; installed in place of the decoder."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.opened: list[str] = []
        self.songs: list[FakeSong] = []

    def open(self, source: str, rate: int) -> FakeSong:
        assert rate == RATE
        self.opened.append(source)
        song = FakeSong(self.behaviour(source), 1.0, f"note of {source}")
        self.songs.append(song)
        return song


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Callable[[Behaviour], Library]:
    def install(behaviour: Behaviour) -> Library:
        made = Library(behaviour)
        monkeypatch.setattr(engine_module, "open_source", made.open)
        return made

    return install


def short(name: str) -> Iterator[NDArray[np.float32]]:
    """One window."""
    yield noise(400, seed=len(name))


class TestTrouble:
    @pytest.mark.parametrize("at", ["open", "first block", "later block", "end"])
    def test_a_broken_song_costs_only_itself(
        self, at: str, device: torch.device, library: Callable[[Behaviour], Library]
    ) -> None:
        whole = noise(20 * WINDOW, seed=2)

        def broken() -> Iterator[NDArray[np.float32]]:
            if at in ("later block", "end"):
                yield whole[: 7 * WINDOW]
            if at == "end":
                yield whole[: WINDOW // 3]
            raise AudioError(f"broken at {at}")

        def behaviour(name: str) -> Iterable[NDArray[np.float32]]:
            if "bad" not in name:
                return [whole]
            if at == "open":
                raise AudioError("broken at open")
            return broken()

        made = library(behaviour)
        names = ["a", "bad b", "c", "bad d", "bad e", "f", "bad g"]
        outcomes = list(make_engine(device, batch_size=6).run(names))
        assert [outcome.index for outcome in outcomes] == list(range(7))
        for name, outcome in zip(names, outcomes, strict=True):
            if "bad" in name:
                assert outcome == Failed(outcome.index, f"broken at {at}")
            else:
                assert isinstance(outcome, Embedded)
                assert outcome.note == f"note of {name}"
                np.testing.assert_allclose(outcome.embedding, brute_force(NETWORK, whole), rtol=0, atol=1e-6)
        assert all(song.closed for song in made.songs)

    def test_all_songs_broken(self, device: torch.device, library: Callable[[Behaviour], Library]) -> None:
        def behaviour(name: str) -> Iterator[NDArray[np.float32]]:
            yield noise(3 * WINDOW)
            raise AudioError("broken")

        library(behaviour)
        outcomes = list(make_engine(device, batch_size=64).run(["song"] * 50))
        assert outcomes == [Failed(index, "broken") for index in range(50)]

    def test_no_samples(self, device: torch.device, library: Callable[[Behaviour], Library]) -> None:
        library(lambda name: [])
        assert list(make_engine(device).run(["a"])) == [Failed(0, "no audio samples")]

    @pytest.mark.parametrize(
        "error", [ZeroDivisionError("a\nbug"), AssertionError(), MemoryError(), OSError(22, "odd")]
    )
    @pytest.mark.parametrize("workers", [1, 4])
    def test_an_unexpected_error_costs_only_its_song(
        self,
        workers: int,
        error: Exception,
        device: torch.device,
        library: Callable[[Behaviour], Library],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def behaviour(name: str) -> Iterator[NDArray[np.float32]]:
            yield noise(3 * WINDOW)
            if name in ("7", "20"):
                raise error

        made = library(behaviour)
        outcomes = list(make_engine(device, workers=workers).run(map(str, range(30))))
        assert [outcome.index for outcome in outcomes] == list(range(30))
        assert [outcome.index for outcome in outcomes if isinstance(outcome, Failed)] == [7, 20]
        reason = outcomes[7].reason  # type: ignore[union-attr]
        if isinstance(error, MemoryError):
            assert "memory" in reason
            assert not caplog.records
        else:
            assert reason.startswith(f"a fault of poolembed: {type(error).__name__}")
            assert "\n" not in reason
            assert [record.name for record in caplog.records] == ["poolembed"] * 2
            assert all("Traceback" in caplog.text and record.exc_info for record in caplog.records)
        assert all(song.closed for song in made.songs)

    def test_an_error_of_merging_costs_only_its_song(
        self, device: torch.device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Broken(SongMerger):
            def add(self, window: int, states: Tensor, bounds: list[int]) -> bool:
                if window == 7:
                    raise ZeroDivisionError("a bug")
                return super().add(window, states, bounds)

        monkeypatch.setattr(engine_module, "SongMerger", Broken)
        outcomes = list(make_engine(device).run(SONGS))
        failed = [index for index, length in enumerate(LENGTHS) if length >= 7 * WINDOW]
        assert [outcome.index for outcome in outcomes if isinstance(outcome, Failed)] == failed

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_what_is_no_error_ends_the_run(
        self, error: type[BaseException], device: torch.device, library: Callable[[Behaviour], Library]
    ) -> None:
        def behaviour(name: str) -> Iterator[NDArray[np.float32]]:
            yield noise(3 * WINDOW)
            raise error

        library(behaviour)
        with pytest.raises(error):
            list(make_engine(device).run(map(str, range(10_000))))

    def test_a_watcher_that_fails_is_no_fault_of_a_song(self, device: torch.device) -> None:
        def watch(seconds: float) -> None:
            raise ZeroDivisionError("a watcher")

        with pytest.raises(ZeroDivisionError, match="a watcher"):
            list(make_engine(device).run(SONGS, on_audio=watch))

    def test_an_error_of_the_network_ends_the_run_and_says_so(
        self, device: torch.device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = make_engine(device)

        def fail(samples: Tensor) -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(engine.network, "features", fail)
        with pytest.raises(PoolembedError, match=r"network failed .*ZeroDivisionError: a bug") as caught:
            list(engine.run(SONGS * 100))
        assert caught.value.hint is not None
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    def test_an_error_of_the_sources_reaches_the_consumer(
        self, device: torch.device, library: Callable[[Behaviour], Library]
    ) -> None:
        library(short)

        def sources() -> Iterator[str]:
            yield from ("a", "b", "c")
            raise ZeroDivisionError("in the source")

        with pytest.raises(ZeroDivisionError, match="in the source"):
            list(make_engine(device, workers=4).run(sources()))

    def test_wrong_arrays_are_an_error_and_not_a_failed_song(self, device: torch.device) -> None:
        with pytest.raises(UsageError):
            list(make_engine(device).run([(np.zeros((2, 2, 2)), RATE)]))

    @pytest.mark.parametrize("taken", [0, 1, 5])
    def test_the_consumer_walks_away(
        self, taken: int, device: torch.device, library: Callable[[Behaviour], Library]
    ) -> None:
        made = library(lambda name: [noise(3 * WINDOW)] * 4)
        run = make_engine(device, workers=4).run(map(str, range(10_000)))
        with closing(run):
            for _ in range(taken):
                next(run)
        assert len(made.opened) <= taken + LOOKAHEAD
        assert all(song.closed for song in made.songs)

    def test_the_consumer_fails(self, device: torch.device, library: Callable[[Behaviour], Library]) -> None:
        library(short)
        with pytest.raises(KeyError):  # noqa: SIM117
            with closing(make_engine(device, workers=4).run(map(str, range(10_000)))) as run:
                for _ in run:
                    raise KeyError("disk full, say")

    def test_the_generator_is_dropped(self, device: torch.device, library: Callable[[Behaviour], Library]) -> None:
        library(short)
        run = make_engine(device).run(map(str, range(10_000)))
        next(run)
        del run
        gc.collect()

    def test_a_long_song_is_left_at_once(self, device: torch.device, library: Callable[[Behaviour], Library]) -> None:
        library(lambda name: [noise(400)] if name == "short" else repeat(noise(WINDOW)))
        with closing(make_engine(device, workers=2, batch_size=1).run(["short", "endless"])) as run:
            next(run)


class TestStop:
    @pytest.mark.parametrize("ordered", [True, False])
    def test_songs_in_hand_are_finished(
        self, ordered: bool, device: torch.device, library: Callable[[Behaviour], Library]
    ) -> None:
        made = library(lambda name: [noise(3 * WINDOW)])
        stop = threading.Event()
        finished = []
        for outcome in make_engine(device, workers=3).run(map(str, range(10_000)), stop=stop, ordered=ordered):
            assert isinstance(outcome, Embedded)
            finished.append(outcome.index)
            if len(finished) == 5:
                stop.set()
        assert sorted(finished) == list(range(len(made.opened)))
        assert len(made.opened) <= 5 + LOOKAHEAD

    def test_before_the_start(self, device: torch.device, library: Callable[[Behaviour], Library]) -> None:
        made = library(short)
        stop = threading.Event()
        stop.set()
        assert list(make_engine(device).run(["a", "b"], stop=stop)) == []
        assert made.opened == []

    def test_during_a_long_song(self, device: torch.device, library: Callable[[Behaviour], Library]) -> None:
        stop = threading.Event()
        song = noise(30 * WINDOW)

        def behaviour(name: str) -> Iterator[NDArray[np.float32]]:
            yield song[: 10 * WINDOW]
            stop.set()
            yield song[10 * WINDOW :]

        made = library(behaviour)
        outcomes = list(make_engine(device, workers=1).run(map(str, range(9)), stop=stop))
        assert len(outcomes) == len(made.opened) == 1
        assert isinstance(outcomes[0], Embedded)
        np.testing.assert_allclose(outcomes[0].embedding, brute_force(NETWORK, song), rtol=0, atol=1e-6)

    def test_while_waiting_for_the_consumer(
        self, device: torch.device, library: Callable[[Behaviour], Library], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine_module, "LOOKAHEAD", 4)
        made = library(short)
        stop = threading.Event()
        run = make_engine(device, batch_size=1).run(map(str, range(1000)), stop=stop)
        next(run)
        wait_until(lambda: len(made.opened) == 4)
        stop.set()
        assert len(list(run)) == 3


class TestBounds:
    @pytest.mark.parametrize(("lookahead", "batch_size", "limit"), [(10, 2, 10), (10, 8, 16), (1, 1, 2)])
    @pytest.mark.parametrize("ordered", [True, False])
    def test_a_slow_consumer_holds_back_the_songs(
        self,
        lookahead: int,
        batch_size: int,
        limit: int,
        ordered: bool,
        device: torch.device,
        library: Callable[[Behaviour], Library],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(engine_module, "LOOKAHEAD", lookahead)
        made = library(short)
        run = make_engine(device, workers=3, batch_size=batch_size).run(map(str, range(60)), ordered=ordered)
        for consumed, _ in enumerate(run):
            if consumed in (0, 1, 20):
                expected = min(limit + consumed, 60)
                wait_until(lambda expected=expected: len(made.opened) == expected)  # type: ignore[misc]
                time.sleep(0.02)  # time to start one too many
            assert len(made.opened) <= limit + consumed
        assert len(made.opened) == 60

    @pytest.mark.parametrize("batch_size", [1, 4, 64])
    def test_a_slow_first_song_holds_back_the_others(
        self,
        batch_size: int,
        device: torch.device,
        library: Callable[[Behaviour], Library],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(engine_module, "LOOKAHEAD", 20)
        limit = max(20, 2 * batch_size)
        release = threading.Event()

        def behaviour(name: str) -> Iterator[NDArray[np.float32]]:
            if name == "0":
                release.wait(PATIENCE)
            yield from short(name)

        made = library(behaviour)
        outcomes: list[Outcome] = []
        run = make_engine(device, workers=3, batch_size=batch_size).run(map(str, range(150)))
        consumer = threading.Thread(target=lambda: outcomes.extend(run))
        consumer.start()
        try:
            wait_until(lambda: len(made.opened) == limit)
            time.sleep(0.05)
            assert len(made.opened) == limit
            assert outcomes == []
        finally:
            release.set()
            consumer.join(PATIENCE)
        assert [outcome.index for outcome in outcomes] == list(range(150))

    def test_few_full_batches_wait_for_a_device(
        self, library: Callable[[Behaviour], Library], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoded = 0
        release = threading.Event()

        class Stuck(OffCpuRunner):
            def start(self, batch: Any) -> Callable[[], Tensor]:
                release.wait(PATIENCE)
                return super().start(batch)

        monkeypatch.setattr(engine_module, "Runner", Stuck)

        def behaviour(name: str) -> Iterator[NDArray[np.float32]]:
            nonlocal decoded
            for _ in range(200):
                decoded += 1
                yield noise(WINDOW)

        library(behaviour)
        found: list[Outcome] = []
        run = make_engine(torch.device("mps"), workers=2, batch_size=2).run(["a", "b"])
        consumer = threading.Thread(target=lambda: found.extend(run))
        consumer.start()
        # In the device's hands, waiting for it, and about to be put into the batch after that.
        most = 2 * (1 + READY) + 2 * 2
        try:
            wait_until(lambda: decoded >= 2 * READY)
            time.sleep(0.1)
            assert decoded <= most + 2
        finally:
            release.set()
            consumer.join(PATIENCE)
        assert len(embeddings(found)) == 2

    def test_few_full_batches_wait_on_the_cpu(self, library: Callable[[Behaviour], Library]) -> None:
        library(lambda name: (noise(WINDOW) for _ in range(60)))
        seen: list[int] = []

        class Spy(engine_module._Run):
            def _before_next_window(self) -> Any:
                seen.append(len(self._full))
                return super()._before_next_window()

        engine = make_engine(workers=3, batch_size=2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine_module, "_Run", Spy)
            assert len(embeddings(engine.run(map(str, range(6))))) == 6
        assert max(seen) <= engine.workers

    @pytest.mark.parametrize(("batch_size", "workers"), [(7, 4), (2 * LOOKAHEAD, 1)])
    def test_hundreds_of_songs_of_one_window(
        self, batch_size: int, workers: int, device: torch.device, library: Callable[[Behaviour], Library]
    ) -> None:
        library(short)
        engine = make_engine(device, batch_size=batch_size, workers=workers)
        assert [outcome.index for outcome in engine.run(map(str, range(600)))] == list(range(600))

    @pytest.mark.parametrize("songs", [0, 1, 2])
    @pytest.mark.parametrize(("batch_size", "workers"), [(1, 8), (1000, 1), (1000, 8)])
    def test_few_songs(self, songs: int, batch_size: int, workers: int, device: torch.device) -> None:
        engine = make_engine(device, batch_size=batch_size, workers=workers)
        assert len(embeddings(engine.run(SONGS[:songs]))) == songs

    def test_a_batch_that_ends_with_the_last_window(self, device: torch.device) -> None:
        song = (noise(8 * WINDOW - 1), RATE)
        assert len(embeddings(make_engine(device, batch_size=8).run([song]))) == 1

    @pytest.mark.parametrize(("batch_size", "workers"), [(0, 1), (1, 0), (-1, 1)])
    def test_impossible_numbers(self, batch_size: int, workers: int) -> None:
        with pytest.raises(UsageError):
            make_engine(batch_size=batch_size, workers=workers)


class TestTorchSettings:
    @pytest.fixture(autouse=True)
    def three_threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        yield
        torch.set_num_threads(before)

    def test_restored_at_the_end(self, device: torch.device) -> None:
        list(make_engine(device).run(SONGS))
        assert torch.get_num_threads() == 3

    def test_restored_when_abandoned(self, device: torch.device) -> None:
        run = make_engine(device).run(SONGS)
        next(run)
        run.close()
        assert torch.get_num_threads() == 3

    def test_restored_after_an_error(self, device: torch.device) -> None:
        with pytest.raises(UsageError):
            list(make_engine(device).run([(np.zeros(5), 0)]))
        assert torch.get_num_threads() == 3

    def test_restored_when_runs_overlap(self) -> None:
        first, second = make_engine().run(SONGS), make_engine().run(SONGS)
        next(first)
        next(second)
        list(first)
        list(second)
        assert torch.get_num_threads() == 3


def test_two_runs_of_one_engine_at_once() -> None:
    engine = make_engine()
    expected = embed(engine)
    found: list[NDArray[np.float32]] = []
    threads = [threading.Thread(target=lambda: found.append(embed(engine))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for each in found:
        np.testing.assert_allclose(each, expected, rtol=0, atol=1e-6)


class TestMemory:
    @staticmethod
    def room_for(engine: Engine, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
        original = engine.network.features

        def features(samples: Tensor) -> Any:
            if len(samples) > rows:
                raise torch.OutOfMemoryError(f"no room for {len(samples)}")
            return original(samples)

        monkeypatch.setattr(engine.network, "features", features)

    @pytest.mark.parametrize(("room", "told"), [(8, []), (7, [4]), (3, [4, 2]), (1, [4, 2, 1])])
    def test_the_batch_is_halved(
        self, room: int, told: list[int], device: torch.device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = embed(make_engine())
        halved: list[int] = []
        engine = make_engine(device, workers=1, on_halved=halved.append)
        self.room_for(engine, room, monkeypatch)
        np.testing.assert_allclose(embed(engine), expected, rtol=0, atol=1e-6)
        assert halved == told

    def test_no_room_for_one_window(self, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = make_engine(device)
        self.room_for(engine, 0, monkeypatch)
        with pytest.raises(PoolembedError, match="memory") as caught:
            embed(engine)
        assert caught.value.hint is not None

    def test_a_batch_smaller_than_the_limit(self, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
        halved: list[int] = []
        engine = make_engine(device, batch_size=64, workers=1, on_halved=halved.append)
        self.room_for(engine, 5, monkeypatch)
        np.testing.assert_allclose(embed(engine, SONGS[:4]), embed(make_engine(), SONGS[:4]), rtol=0, atol=1e-6)
        assert halved[-1:] in ([], [4])


class TestSeconds:
    @pytest.mark.parametrize("seconds", [0.0, -1.0, 0.039, float("nan"), float("inf"), float("-inf")])
    def test_impossible_ones_are_refused(self, seconds: float) -> None:
        with pytest.raises(UsageError):
            list(make_engine().run(SONGS, seconds=seconds))

    def test_the_resolution_is_the_least(self) -> None:
        assert NETWORK.config.time_resolution == 0.04
        assert len(embeddings(make_engine().run(SONGS, seconds=0.04))) == len(SONGS)

    def test_longer_than_any_song(self) -> None:
        for outcome in make_engine().run(SONGS, seconds=1e12):
            assert isinstance(outcome, Embedded)
            assert outcome.segments is not None
            assert outcome.segments.times.tolist() == [0.0]
            np.testing.assert_allclose(outcome.segments.embeddings[0], outcome.embedding, rtol=0, atol=1e-6)


def test_sources_are_taken_as_they_are_needed(
    device: torch.device, library: Callable[[Behaviour], Library], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "LOOKAHEAD", 4)
    library(short)
    taken = 0

    def sources() -> Generator[str]:
        nonlocal taken
        for taken in range(1, 10**9):
            yield str(taken)

    run = make_engine(device, batch_size=2).run(sources())
    for consumed in range(1, 20):
        next(run)
        assert taken <= consumed + 4
    run.close()
