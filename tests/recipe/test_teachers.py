"""The teachers' networks, on random weights; that the real weights give the published features is not for a test."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.recipe.teachers import vectors
from models.recipe.teachers.checkpoint import read_checkpoint
from models.recipe.teachers.mobilenet import MobileNetTeacher
from models.recipe.teachers.musicnn import PonsMusicnn, WonMusicnn
from models.recipe.teachers.own import OwnTeacher
from models.recipe.teachers.spectra import kaldi_filterbank, power_spectrum
from poolembed.bundle import save_bundle
from poolembed.embed.model import load
from poolembed.labels import read_labels
from poolembed.vectors import match, read_vectors
from tests.conftest import tiny_network
from tests.spectrum import spectrum

# MobileNetV3 of width 0.4: per block its kernel, channels in between, channels out, and whether channels are weighed
BLOCKS = (
    *((3, 8, 8, 0), (3, 24, 16, 0), (3, 32, 16, 0), (5, 32, 16, 8), (5, 48, 16, 16), (5, 48, 16, 16), (3, 96, 32, 0)),
    *((3, 80, 32, 0), (3, 72, 32, 0), (3, 72, 32, 0), (3, 192, 48, 48), (3, 272, 48, 72), (5, 272, 64, 72)),
    *((5, 384, 64, 96), (5, 384, 64, 96)),
)


class Unit(nn.Sequential):
    """A convolution with batch norm."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out, eps=0.001),
        )


class Weigh(nn.Module):
    """Squeeze and excitation, under the names of the checkpoint."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        layers = {"fc1": nn.Linear(channels, hidden), "fc2": nn.Linear(hidden, channels)}
        self.conc_se_layers = nn.ModuleList([nn.ModuleDict(layers)])
        self.fully_connected = [*layers.values()]

    def forward(self, x: Tensor) -> Tensor:
        squeeze, excite = self.fully_connected
        scale: Tensor = excite(F.relu(squeeze(x.mean((2, 3))))).sigmoid()
        return x * scale[..., None, None]


class Block(nn.Module):
    """An inverted residual."""

    def __init__(self, number: int, channels: int, shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        kernel, wide, out, weighed = shape
        self.activation = F.hardswish if number >= 7 else F.relu
        layers: list[nn.Module] = [] if wide == channels else [Unit(channels, wide, 1)]
        layers.append(Unit(wide, wide, kernel, 2 if number in (2, 4, 7, 13) else 1, groups=wide))
        layers += [Weigh(wide, weighed)] if weighed else []
        self.block = nn.Sequential(*layers, Unit(wide, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.block:
            y = layer(y)
            if isinstance(layer, Unit) and layer is not self.block[-1]:
                y = self.activation(y)
        return x + y if x.shape == y.shape else y


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """The same network as modules, with random weights and running statistics."""
    torch.manual_seed(3)
    layers: list[nn.Module] = [Unit(1, 8, 3, 2)]
    channels = 8
    for number, shape in enumerate(BLOCKS, 1):
        layers.append(Block(number, channels, shape))
        channels = shape[2]
    layers.append(Unit(64, 384, 1))
    whole = nn.Module()
    whole.features = nn.Sequential(*layers)
    whole.classifier = nn.Sequential(
        nn.Identity(), nn.Identity(), nn.Linear(384, 512), nn.Hardswish(), nn.Identity(), nn.Linear(512, 527)
    )
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return whole.eval()


@pytest.fixture(scope="module")
def mobilenet(network: nn.Module) -> MobileNetTeacher:
    return MobileNetTeacher(network.state_dict())


def samples(rows: int, seconds: float, rate: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(5).normal(0, 0.1, (rows, int(seconds * rate))).astype(np.float32))


class TestMobileNet:
    def test_equals_the_modules(self, network: nn.Module, mobilenet: MobileNetTeacher) -> None:
        clips = samples(2, 1.3, 32_000)
        found = mobilenet(clips)
        mel = mobilenet.mel(clips)
        x, blocks = mel[:, None], []
        with torch.no_grad():
            for number, layer in enumerate(network.features):  # type: ignore[arg-type]
                x = layer(x)
                if number in (0, 16):
                    x = F.hardswish(x)
                if number in (5, 11, 13, 15):
                    blocks.append(x.mean((2, 3)))
            penultimate = x.mean((2, 3))
            logits = network.classifier(penultimate)  # type: ignore[operator]
        torch.testing.assert_close(found["penultimate"], penultimate, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found["blocks"], torch.cat([*blocks, mel.mean(2)], 1), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found["logits"], logits, rtol=1e-3, atol=1e-4)
        assert {name: found[name].shape[1] for name in mobilenet.outputs} == {
            "penultimate": 384,
            "blocks": 320,
            "logits": 527,
        }

    def test_mel_of_a_tone(self, mobilenet: MobileNetTeacher) -> None:
        """The band that a tone falls into, by Kaldi's formula."""
        hz = 3000.0
        tone = torch.sin(torch.arange(32_000) * 2 * torch.pi * hz / 32_000)[None]
        mel = 1127 * np.log1p(np.array([0.0, 15_000.0, hz]) / 700)
        band = mel[2] / (mel[1] / 129) - 1
        assert abs(int(mobilenet.mel(tone).mean(2).argmax()) - band) < 1

    @pytest.mark.parametrize("length", [2, 300, 1024, 5000])
    def test_short_clips(self, mobilenet: MobileNetTeacher, length: int) -> None:
        for value in mobilenet(samples(1, length / 32_000, 32_000)).values():
            assert torch.isfinite(value).all()


class TestSpectra:
    def test_power_is_that_of_the_spectrum(self) -> None:
        clip = samples(1, 0.5, 16_000)
        for padding in ("reflect", "constant"):
            ours = power_spectrum(clip, torch.hann_window(512), 512, 256, padding=padding)
            theirs = np.abs(spectrum(clip[0].numpy(), 512, 256, padding)) ** 2
            np.testing.assert_allclose(ours[0].T, theirs, rtol=1e-3, atol=1e-4)

    def test_triangles(self) -> None:
        filters = kaldi_filterbank(40, 1024, 32_000, 0, 15_000).numpy()
        assert filters.shape == (40, 513)
        hz = np.arange(513) * 32_000 / 1024
        corners = 700 * np.expm1(np.linspace(0, 1127 * np.log1p(15_000 / 700), 42) / 1127)
        for number, row in enumerate(filters):
            inside = (hz > corners[number]) & (hz < corners[number + 2])
            assert (row[inside] > 0).all()
            assert not row[~inside].any()
        total = filters.sum(0)[(hz > corners[1]) & (hz < corners[-2])]
        np.testing.assert_allclose(total, 1, atol=1e-4)  # neighbours share each frequency between them


def pons_weights() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng) / math.sqrt(math.prod(shape[:-1]))

    weights: dict[str, Tensor] = {}
    kernels = ((7, 38, 1, 204), (7, 67, 1, 204), (128, 1, 1, 51), (64, 1, 1, 51), (32, 1, 1, 51))
    for number, shape in enumerate((*kernels, (7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64))):
        name = f"conv2d_{number}" if number else "conv2d"
        weights |= {f"{name}/kernel": drawn(*shape), f"{name}/bias": drawn(shape[-1])}
    for number, size in enumerate((1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200)):
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        weights |= {f"{name}/{part}": drawn(size) for part in ("gamma", "beta", "moving_mean")}
        weights[f"{name}/moving_variance"] = drawn(size).square() + 0.5
    return weights | {
        "dense/kernel": drawn(1506, 200),
        "dense/bias": drawn(200),
        "dense_1/kernel": drawn(200, 50),
        "dense_1/bias": drawn(50),
    }


class Normed(nn.Module):
    """A convolution over time, or over bands and time, and batch norm before the ReLU."""

    def __init__(self, out: int, channels: int, *kernel: int) -> None:
        super().__init__()
        flat = len(kernel) == 1
        self.conv: nn.Module = (
            nn.Conv1d(channels, out, kernel[0], padding=kernel[0] // 2)
            if flat
            else nn.Conv2d(channels, out, (kernel[0], kernel[1]), padding=(0, 3))
        )
        self.bn: nn.Module = nn.BatchNorm1d(out) if flat else nn.BatchNorm2d(out)
        self.bn.running_var = torch.rand(out) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class TestMusicnn:
    def test_shapes_and_batches(self) -> None:
        teacher = PonsMusicnn(pons_weights())
        clips = samples(3, 2.0, 16_000)
        together = teacher(clips)
        assert {name: together[name].shape[1] for name in teacher.outputs} == {
            "penultimate": 200,
            "pools": 1506,
            "logits": 50,
        }
        for row in range(3):
            for name, value in teacher(clips[row : row + 1]).items():
                torch.testing.assert_close(value[0], together[name][row], rtol=1e-3, atol=1e-4)

    def test_pools_are_of_each_channel_its_maximum_and_mean(self) -> None:
        pools = PonsMusicnn(pons_weights())(samples(1, 2.0, 16_000))["pools"].view(753, 2)
        assert (pools[:, 0] >= pools[:, 1] - 1e-4).all()

    def test_half_precision(self) -> None:
        clips = samples(2, 2.0, 16_000)
        whole, half = (PonsMusicnn(pons_weights(), kind)(clips) for kind in (torch.float32, torch.bfloat16))
        for name in ("penultimate", "pools"):
            assert torch.cosine_similarity(whole[name], half[name]).min() > 0.999

    def test_short_clips(self) -> None:
        assert torch.isfinite(PonsMusicnn(pons_weights())(samples(1, 0.05, 16_000))["logits"]).all()

    def test_as_trained_anew(self) -> None:
        """Equal to the layers of torch, batch norm first."""
        torch.manual_seed(2)
        shapes = ((204, 1, 67, 7), (204, 1, 38, 7), (51, 1, 129), (51, 1, 65), (51, 1, 33))
        front = nn.ModuleList(Normed(*shape) for shape in shapes)
        middle = nn.ModuleList(Normed(*shape) for shape in ((64, 561, 7), (64, 64, 7), (64, 64, 7)))
        ends = nn.ModuleDict({"dense1": nn.Linear(1506, 200), "bn": nn.BatchNorm1d(200), "dense2": nn.Linear(200, 50)})
        norm = nn.BatchNorm2d(1)
        for part in (front, middle, ends, norm):
            part.eval()
        weights = {f"layers.{key}": value for key, value in front.state_dict().items()}
        weights |= {f"layer{int(key[0]) + 1}{key[1:]}": value for key, value in middle.state_dict().items()}
        weights |= ends.state_dict() | {f"spec_bn.{key}": value for key, value in norm.state_dict().items()}
        bank = torch.from_numpy(librosa.filters.mel(sr=16_000, n_fft=512, n_mels=96, htk=True, norm=None)).T
        weights |= {"spec.spectrogram.window": torch.hann_window(512), "spec.mel_scale.fb": bank}
        clips = samples(2, 1.0, 16_000)
        found = WonMusicnn(weights)(clips)
        with torch.no_grad():
            power = power_spectrum(clips, torch.hann_window(512), 512, 256)
            x = norm(10 * torch.log10((bank.T @ power).clamp_min(1e-10))[:, None])
            tall = [layer(x).amax(2) for layer in front[:2]]
            parts = [torch.cat([*tall, *(layer(x.mean(2)) for layer in front[2:])], 1)]
            for number, layer in enumerate(middle):
                y = layer(parts[-1])
                parts.append(y + parts[-1] if number else y)
            everything = torch.cat(parts, 1)
            pools = torch.cat([everything.amax(2), everything.mean(2)], 1)
            penultimate = ends["bn"](ends["dense1"](pools)).relu()
            logits = ends["dense2"](penultimate)
        torch.testing.assert_close(found["pools"], pools, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found["penultimate"], penultimate, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found["logits"], logits, rtol=1e-3, atol=1e-4)


class TestOwn:
    def test_clips_are_embedded_as_by_embed(self, tmp_path: Path) -> None:
        save_bundle(tmp_path / "mine", tiny_network(), name="mine", license="MIT", card="")
        teacher = OwnTeacher(tmp_path / "mine")
        model = load(tmp_path / "mine")
        for seconds in (0.3, 2.0):
            clips = samples(3, seconds, teacher.sample_rate)
            vectors = teacher(clips)["embedding"].numpy()
            assert vectors.shape == (3, model.embedding_size)
            for vector, clip in zip(vectors, clips.numpy(), strict=True):
                np.testing.assert_allclose(vector, model.embed(clip, sample_rate=model.sample_rate), atol=1e-5)
        assert not np.allclose(vectors[0], vectors[1], atol=1e-3)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def bundle(tensors: dict[str, np.ndarray]) -> tuple[bytes, bytes]:
    """What TensorFlow writes: an index of keys that share their beginnings, and the data."""
    data, entries, before = b"", b"", b""
    for key, tensor in [("", None), *sorted(tensors.items())]:
        value = b"\x08\x01"  # the header of the bundle: one shard
        if tensor is not None:
            axes = b"".join(
                b"\x12" + varint(len(axis)) + axis for size in tensor.shape for axis in [b"\x08" + varint(size)]
            )
            where = b"\x20" + varint(len(data)) if data else b""
            kind = 1 if tensor.dtype == np.float32 else 9
            value = b"\x08" + varint(kind) + b"\x12" + varint(len(axes)) + axes + where
            value += b"\x28" + varint(tensor.nbytes) + b"\x35" + bytes(4)
            data += tensor.tobytes()
        name = key.encode()
        shared = 0
        while shared < min(len(before), len(name)) and before[shared] == name[shared]:
            shared += 1
        entries += varint(shared) + varint(len(name) - shared) + varint(len(value)) + name[shared:] + value
        before = name
    block = entries + struct.pack("<II", 0, 1)
    handle = varint(0) + varint(len(block))
    index = varint(0) + varint(1) + varint(len(handle)) + b"z" + handle + struct.pack("<II", 0, 1)
    footer = varint(0) + varint(0) + varint(len(block) + 5) + varint(len(index))
    magic = (0xDB4775248B80FB57).to_bytes(8, "little")
    return block + bytes(5) + index + bytes(5) + footer.ljust(40, b"\0") + magic, data


class TestCheckpoint:
    def test_there_and_back(self) -> None:
        rng = np.random.default_rng(0)
        shapes = {"conv2d/bias": (3,), "conv2d/kernel": (7, 2, 1, 3), "conv2d_1/bias": (300,), "step": ()}
        tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        found = read_checkpoint(*bundle({**tensors, "count": np.array([7])}))
        assert set(found) == set(tensors)  # numbers that are no floats are left out
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(found[name], tensor)

    def test_something_else(self) -> None:
        with pytest.raises(ValueError, match="not the index"):
            read_checkpoint(b"x" * 100, b"")


class Loudness:
    """A teacher that knows how loud a clip is, and how long; it counts its calls."""

    sample_rate = 8000
    outputs = ("level", "length")

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, samples: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        length = torch.full((len(samples), 1), float(samples.shape[1]))
        return {"level": samples.std(1, keepdim=True), "length": length}


class TestVectors:
    @pytest.fixture
    def table(self, tmp_path: Path) -> Path:
        for number in range(3):
            noise = np.random.default_rng(number).normal(0, 0.02 * (number + 1), 3 * 8000)
            soundfile.write(tmp_path / f"{number}.wav", noise, 8000)
        (tmp_path / "broken.wav").write_bytes(b"no sound" * 9)
        rows = [f"{n}.wav,{start},{start + length}" for start, length in ((1, 1), (0, 0.5)) for n in (2, 0, 1)]
        (tmp_path / "clips.csv").write_text("\n".join(["path,start,end", *rows, "broken.wav,,", "1.wav,,"]) + "\n")
        return tmp_path / "clips.csv"

    @pytest.fixture(autouse=True)
    def small_parts(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(vectors, "_PART", 3)
        yield

    def test_rows_and_keys(self, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        clips = read_labels(table, columns=(), need_labels=False).clips
        assert vectors.compute(Loudness(), clips, tmp_path / "out", "loud") == 1
        assert "broken.wav" in capsys.readouterr().err
        levels = read_vectors(tmp_path / "out" / "loud-level.parquet")
        lengths = read_vectors(tmp_path / "out" / "loud-length.parquet").matrix
        rows = match(levels, [clip.key for clip in clips])
        assert sum(row is None for row in rows) == 1
        for clip, row in zip(clips, rows, strict=True):
            if row is not None:
                assert levels.matrix[row, 0] == pytest.approx(0.02 * (int(clip.key[0]) + 1), rel=0.1)
                assert lengths[row, 0] == ((clip.end or 3.0) - clip.start) * 8000

    def test_goes_on(self, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clips = read_labels(table, columns=(), need_labels=False).clips
        whole = tmp_path / "whole"
        vectors.compute(Loudness(), clips, whole, "loud")
        killed = Loudness()
        monkeypatch.setattr(killed, "sample_rate", 8000)
        parts = list(vectors.in_parts(clips))
        assert sum(map(len, parts)) == len(clips)
        out = tmp_path / "out"
        vectors.compute(killed, parts[0], out, "loud")  # as far as a killed run came
        before = killed.calls
        vectors.compute(killed, clips, out, "loud")
        calls = killed.calls - before
        vectors.compute(killed, clips, out, "loud")
        assert killed.calls - before == calls > 0
        for name in ("loud-level.parquet", "loud-length.parquet"):
            assert read_vectors(out / name).keys == read_vectors(whole / name).keys
            np.testing.assert_array_equal(read_vectors(out / name).matrix, read_vectors(whole / name).matrix)

    def test_copies_have_the_vectors_of_what_they_are_copies_of(self, table: Path, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "copy.wav", np.zeros(8000), 8000)  # what is in it does not matter
        rows = [
            "path,start,end,copy_of",
            "0.wav,0,1,",
            "1.wav,0,1,",
            '"copy.wav",0,1,"1.wav#t=0,1"',
            "copy.wav,0,0.5,gone",
        ]
        table.write_text("\n".join(rows) + "\n")
        clips = read_labels(table, columns=("copy_of",), need_labels=False).clips
        assert vectors.compute(Loudness(), clips, tmp_path / "out", "loud") == 1
        levels = read_vectors(tmp_path / "out" / "loud-level.parquet")
        assert levels.keys == ["0.wav#t=0,1", "1.wav#t=0,1", "copy.wav#t=0,1"]
        assert levels.matrix[2, 0] == levels.matrix[1, 0] != levels.matrix[0, 0]

    def test_another_table_costs_what_is_new(self, table: Path, tmp_path: Path) -> None:
        clips = [clip for clip in read_labels(table, columns=(), need_labels=False).clips if "broken" not in clip.key]
        teacher, out = Loudness(), tmp_path / "out"
        vectors.compute(teacher, clips[::2], out, "loud")
        vectors.compute(teacher, clips[:2], out, "loud")
        before = teacher.calls
        vectors.compute(teacher, clips[::-1], out, "loud")  # in another order, so that no part is the same
        assert teacher.calls > before
        assert read_vectors(out / "loud-level.parquet").keys == [clip.key for clip in clips[::-1]]
        vectors.compute(Loudness(), clips, tmp_path / "whole", "loud")
        there, whole = (read_vectors(folder / "loud-level.parquet") for folder in (out, tmp_path / "whole"))
        np.testing.assert_array_equal(there.matrix[::-1], whole.matrix)
        before = teacher.calls
        vectors.compute(teacher, clips[1:4], out, "loud")
        assert teacher.calls == before
        assert read_vectors(out / "loud-level.parquet").keys == [clip.key for clip in clips[1:4]]

    def test_kinds(self, table: Path, network: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        rows = ["path,start,end,kind", "0.wav,0,1,music", "1.wav,0,1,notes", "2.wav,0,1,drum notes", "2.wav,1,2,"]
        table.write_text("\n".join(rows) + "\n")
        weights = ["--teacher", "mn04", str(tmp_path / "weights.pt")]
        assert vectors.main([str(table), str(tmp_path), *weights, "--kind", "music", "drum notes"]) == 0
        assert read_vectors(tmp_path / "mn04-logits.parquet").keys == ["0.wav#t=0,1", "2.wav#t=0,1"]
        with pytest.raises(SystemExit):
            vectors.main([str(table), str(tmp_path), *weights, "--kind", "speech"])
        assert "no clip is of kind speech" in capsys.readouterr().err

    def test_smoke(self, table: Path, network: nn.Module, tmp_path: Path) -> None:
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        arguments = [str(table), str(tmp_path / "out"), "--teacher", "mn04", str(tmp_path / "weights.pt"), "--smoke"]
        assert vectors.main(arguments) == 3  # one clip is broken
        for output, size in (("penultimate", 384), ("blocks", 320), ("logits", 527)):
            assert read_vectors(tmp_path / "out" / f"mn04-{output}.parquet").matrix.shape == (7, size)

    def test_an_unknown_teacher(self, table: Path, tmp_path: Path) -> None:
        with pytest.raises(SystemExit):
            vectors.main([str(table), str(tmp_path), "--teacher", "byol-a", "weights"])
