"""Choosing a device and a precision, and running batches on it."""

from __future__ import annotations

import os
from typing import Any, cast

import pytest
import torch

from poolembed.bundle import load_bundle
from poolembed.embed import device as device_module
from poolembed.embed.device import (
    DTYPES,
    Batch,
    DeviceName,
    PrecisionName,
    Runner,
    choose_device,
    choose_precision,
    default_batch_size,
    exact_and_single_threaded,
    usable_cores,
)
from poolembed.errors import PoolembedError, UsageError
from poolembed.nn.config import EncoderConfig, ModelConfig
from tests.conftest import noise, tiny_network

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
MPS = torch.device("mps")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends which devices there are."""

    def has(*names: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in names)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in names)

    return has


class TestDevice:
    @pytest.mark.parametrize(
        ("there", "chosen"), [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")]
    )
    def test_auto_takes_the_fastest_there_is(self, machine: Any, there: tuple[str, ...], chosen: str) -> None:
        machine(*there)
        assert choose_device("auto") == torch.device(chosen)
        assert choose_device("cpu") == CPU
        for name in there:
            assert choose_device(cast(DeviceName, name)) == torch.device(name)

    @pytest.mark.parametrize("name", ["cuda", "mps"])
    def test_one_that_is_not_there(self, machine: Any, name: DeviceName) -> None:
        machine()
        with pytest.raises(UsageError, match=name) as caught:
            choose_device(name)
        assert "cpu" in (caught.value.hint or "")

    @pytest.mark.parametrize("name", ["gpu", "", "cuda:0", "CPU", "tpu"])
    def test_one_that_does_not_exist(self, name: Any) -> None:
        with pytest.raises(UsageError, match="unknown device") as caught:
            choose_device(name)
        assert "auto, cpu, cuda or mps" in (caught.value.hint or "")

    @pytest.mark.parametrize(("model", "cpu"), [("base", 6), ("tiny", 32)])
    def test_every_device_has_a_batch_size(self, model: str, cpu: int) -> None:
        config = load_bundle(model).config.model
        assert default_batch_size(CPU, config) == cpu
        assert default_batch_size(CUDA, config) >= 1
        assert default_batch_size(MPS, config) >= 1

    @pytest.mark.parametrize("width", [1, 7, 100, 10_000])
    def test_a_network_of_any_size_has_a_batch_size(self, width: int) -> None:
        encoder = EncoderConfig(widths=(width, 8, 8, 8))
        assert 1 <= default_batch_size(CPU, ModelConfig(encoder=encoder)) <= 64

    def test_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert 1 <= usable_cores() <= (os.cpu_count() or 1)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 8}, raising=False)
        assert usable_cores() == 3
        monkeypatch.delattr(os, "sched_getaffinity")
        assert usable_cores() == os.cpu_count()


class TestPrecision:
    @pytest.mark.parametrize("device", [CPU, CUDA, MPS])
    @pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
    def test_by_name(self, name: PrecisionName, device: torch.device) -> None:
        assert choose_precision(name, device) == DTYPES[name]

    @pytest.mark.parametrize("name", ["", "float32", "int8", "FP32"])
    def test_unknown(self, name: Any) -> None:
        with pytest.raises(UsageError, match="unknown precision"):
            choose_precision(name, CPU)

    @pytest.mark.parametrize(
        ("capabilities", "chosen"),
        [
            ({"amx_bf16": True}, torch.bfloat16),
            ({"avx512_bf16": True}, torch.bfloat16),
            ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, torch.float32),
            ({}, torch.float32),
        ],
    )
    def test_auto_on_a_cpu(
        self, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], chosen: torch.dtype
    ) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
        assert choose_precision("auto", CPU) == chosen

    def test_auto_where_torch_does_not_tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
        assert choose_precision("auto", CPU) == torch.float32

    @pytest.mark.parametrize(
        ("capability", "chosen"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
    )
    def test_auto_on_cuda(
        self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], chosen: torch.dtype
    ) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        assert choose_precision("auto", CUDA) == chosen

    def test_auto_elsewhere(self) -> None:
        assert choose_precision("auto", MPS) == torch.float32


class TestTorchSettings:
    def test_one_thread_inside_and_restored(self) -> None:
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            with pytest.raises(KeyError), exact_and_single_threaded():
                assert torch.get_num_threads() == 1
                raise KeyError
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)

    @pytest.mark.parametrize("tf32", [True, False])
    def test_no_tf32_on_cuda_and_restored(self, tf32: bool) -> None:
        before = torch.backends.cudnn.allow_tf32
        try:
            torch.backends.cudnn.allow_tf32 = tf32
            with exact_and_single_threaded():
                assert not torch.backends.cudnn.allow_tf32
                assert not torch.backends.cuda.matmul.allow_tf32
            assert torch.backends.cudnn.allow_tf32 == tf32
        finally:
            torch.backends.cudnn.allow_tf32 = before


class TestRunner:
    NETWORK = tiny_network().for_inference(CPU, torch.float32)

    def batch(self, windows: int, room: int, slots: int = 1) -> Batch:
        samples = torch.zeros(room, self.NETWORK.window_samples)
        for row in range(room):  # rows beyond `windows` are left over from another batch
            samples[row] = torch.from_numpy(noise(self.NETWORK.window_samples, seed=row))
        bounds = [[row % 32 * slot // slots for slot in range(slots + 1)] for row in range(windows)]
        return Batch(samples, bounds, [(None, row) for row in range(windows)], windows)

    @pytest.mark.parametrize("slots", [1, 3])
    def test_states_are_those_of_each_window_and_slot(self, slots: int) -> None:
        batch = self.batch(5, 8, slots)
        with torch.inference_mode():
            states = Runner(self.NETWORK, lambda _: None).start(batch)()
            assert states.shape == (5, slots, self.NETWORK.state_size)
            for row in range(5):
                features = self.NETWORK.features(batch.samples[row : row + 1])
                for slot in range(slots):
                    start, stop = (torch.tensor([batch.bounds[row][slot + i]]) for i in (0, 1))
                    expected = self.NETWORK.pack(self.NETWORK.fold(features, start, stop))[0]
                    torch.testing.assert_close(states[row, slot], expected, rtol=1e-5, atol=1e-5)

    def test_the_limit_stays_for_later_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        network = tiny_network().for_inference(CPU, torch.float32)
        original, sizes = network.features, []

        def features(samples: torch.Tensor) -> Any:
            sizes.append(len(samples))
            if len(samples) > 2:
                raise torch.OutOfMemoryError
            return original(samples)

        monkeypatch.setattr(network, "features", features)
        told: list[int] = []
        runner = Runner(network, told.append)
        with torch.inference_mode():
            for _ in range(2):
                runner.start(self.batch(7, 7))()
        assert told == [3, 1]
        assert sizes == [7, 3] + 7 * [1] + 7 * [1]

    def test_other_errors_are_not_taken_for_a_lack_of_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        network = tiny_network().for_inference(CPU, torch.float32)

        def features(samples: torch.Tensor) -> Any:
            raise RuntimeError("a bug")

        monkeypatch.setattr(network, "features", features)
        with pytest.raises(PoolembedError, match="network failed on cpu: RuntimeError: a bug"):
            Runner(network, lambda _: None).start(self.batch(2, 2))


def test_names_are_those_that_the_command_line_offers() -> None:
    assert set(DTYPES) | {"auto"} == set(device_module.PrecisionName.__args__)  # type: ignore[attr-defined]
    assert {"cpu", *device_module.BATCH_SIZES, "auto"} == set(device_module.DeviceName.__args__)  # type: ignore[attr-defined]
