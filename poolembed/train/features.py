"""What pooling needs of every clip, computed once: for training with a frozen encoder.

Frame features are kept as float16, ``frames.npy``, one row of C a feature; of the other parts, whose pooling has
nothing to train, the counts and sums of every window are kept as float32, ``others.npy``. Both are mapped into memory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poolembed.catalog import described
from poolembed.embed.device import default_batch_size
from poolembed.errors import OutputError, VectorsError
from poolembed.files.npy import npy_header
from poolembed.nn.model import Features, SongModel
from poolembed.text import size
from poolembed.train.cache import STEP, MelCache, dequantise
from poolembed.train.sampling import Crops, Sampler, Tensors, window_starts
from poolembed.train.shards import alone, check_disk, writing_cache
from poolembed.vectors.npy import map_npy

VERSION = 2
FRAMES, OTHERS = "frames.npy", "others.npy"

_LARGEST = 65504.0  # of float16


@dataclass(frozen=True)
class FeatureBatch(Tensors):
    """Crops of clips as a frozen encoder sees them; what `Batch` is to log-mels.

    Attributes:
        frame_features: ``(R, C, T)`` float16, 0 after the clip's end.
        frames: ``(R,)`` int64, mel frames of the clip in the crop.
        means: ``(R, S)`` float32, averages over the crop of the channels of all other parts.
        shapes: channels and length ``(C_i, T_i)`` of each other part; S is the sum of the channels.
        clips: ``(R,)`` int64, numbers of the clips in the run's table.
    """

    frame_features: Tensor
    frames: Tensor
    means: Tensor
    shapes: tuple[tuple[int, int], ...]
    clips: Tensor

    def parts(self) -> Features:
        """In the place of `SongModel.clip_features`, and what `SongModel.fold` makes the same states of.

        Of the other parts, whose average is all that pooling looks at, every feature is the average.
        """
        others = torch.split(self.means, [channels for channels, _ in self.shapes], dim=1) if self.shapes else ()
        expanded = [mean.unsqueeze(2).expand(-1, -1, t) for mean, (_, t) in zip(others, self.shapes, strict=True)]
        return [self.frame_features.float(), *expanded]


class FeatureCache:
    """Features of clips on disk, for one encoder. `fill` it, then take batches of it as of `Crops`.

    They appear in a folder named after all that they depend on: the encoder's weights, the type and device it computes
    with, and what the clips sound like. A fill that was killed or stopped begins again.

    Args:
        directory: the folder of this cache is below it.
        network: whose front part is frozen; it is copied and run in eval mode, on the device it is on.
        mels: filled.
        rows: row in `mels` of every clip of the run's table; None where there is none.
        dtype: what the encoder computes in.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        network: SongModel,
        mels: MelCache,
        rows: Sequence[int | None],
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        config = network.config
        self._device = network.project.weight.device
        self._network = network.for_inference(self._device, dtype)
        self._log_floor = mels.log_floor
        self._window = config.encoder.window_frames
        self._reduction = config.encoder.time_reduction
        self._channels = config.encoder.frame_features
        strides = accumulate(config.encoder.time_strides, mul)
        # Per other part, its channels and the mel frames that one of its features stands for.
        self._others_of = [*zip(config.encoder.widths, strides, strict=True)] if config.mid_levels else []
        self._others_of += [(2 * mels.n_mels, 1)] if config.mel_statistics else []
        self._width = sum(1 + channels for channels, _ in self._others_of)
        # A row that several clips share is encoded once.
        unique = list(dict.fromkeys(row for row in rows if row is not None))
        place = {row: at for at, row in enumerate(unique)}
        self._place = np.array([-1 if row is None else place[row] for row in rows], np.int64)
        self._crops = Crops.of(mels, unique, config.encoder)
        self._lengths = np.array([mels.frames(row) for row in unique], np.int64)
        self._first_window = np.concatenate([[0], np.cumsum(-(-self._lengths // self._window))])
        self._first_frame = np.concatenate([[0], np.cumsum(-(-self._lengths // self._reduction))])
        identity = _identity(network, dtype, self._device, [mels.content(row) for row in unique])
        self.folder = Path(directory) / identity
        self._frames = np.zeros((0, self._channels), np.float16)
        self._others = np.zeros((0, self._width), np.float32)

    @property
    def size(self) -> int:
        """Bytes of the features of all clips."""
        return int(self._first_frame[-1] * self._channels * 2 + self._first_window[-1] * self._width * 4)

    def fill(
        self,
        *,
        limit_gb: float,
        watch: Callable[[int, int], None] = lambda done, total: None,
        stop: threading.Event | None = None,
    ) -> bool:
        """Encode every clip, unless that was done before.

        Args:
            limit_gb: largest size, in 10^9 bytes.
            watch: told how many windows are done, of how many.
            stop: once set, the fill ends early.

        Returns:
            Whether all is there.

        Raises:
            OutputError: it cannot be written, or does not fit the disk or the limit.
        """
        stop = stop or threading.Event()
        work = self.folder.with_name(f".{self.folder.name}.part")
        with alone(self.folder.with_name("features.lock"), stop) as mine:
            if mine and not self.folder.exists():
                self._check_room(limit_gb)
                with writing_cache(self.folder):
                    shutil.rmtree(work, ignore_errors=True)
                    work.mkdir()
                    try:
                        if self._encode(work, watch, stop):
                            work.rename(self.folder)
                    finally:  # on a full disk it should not keep its space
                        shutil.rmtree(work, ignore_errors=True)
        if not self.folder.exists():
            return False
        try:
            self._frames = map_npy(self.folder / FRAMES, [2])
            if self._width:
                self._others = map_npy(self.folder / OTHERS, [2])
        except VectorsError as error:
            raise OutputError(error.message, hint=f"remove {self.folder}, and the clips are encoded again") from error
        return True

    def batch(self, sampler: Sampler, step: int, windows: int) -> FeatureBatch:
        """The crops of a step: of clips of more than W windows so many in a row, at random; shorter ones padded.

        A clip's last window counts if it is half full: a crop should not be of a few frames.
        """
        clips = sampler.clips(step)
        full = (self._lengths[self._place[clips]] + self._window // 2) // self._window
        return self.gather(clips, sampler.starts(step, full - windows), windows)

    def whole(self, clips: Sequence[int], batch_size: int) -> Iterator[FeatureBatch]:
        """Every window of the clips, in order and uncropped, one a row, `batch_size` windows at a time."""
        numbers, starts = window_starts(np.asarray(clips, np.int64), self._lengths[self._place], self._window)
        for first in range(0, len(numbers), batch_size):
            part = slice(first, first + batch_size)
            yield self.gather(numbers[part], starts[part] // self._window, 1)

    def gather(self, clips: NDArray[np.int64], starts: NDArray[np.int64], windows: int) -> FeatureBatch:
        """Features of W windows of each clip, from the windows where they start."""
        frames = windows * self._window
        features = torch.from_numpy(np.zeros((len(clips), frames // self._reduction, self._channels), np.float16))
        others = torch.zeros(len(clips), self._width)
        places = self._place[clips]
        for row, (place, start) in enumerate(zip(places.tolist(), starts.tolist(), strict=True)):
            first, end = self._first_frame[place : place + 2].tolist()
            first += start * self._window // self._reduction
            piece = self._frames[first : min(first + features.shape[1], end)]
            features.numpy()[row, : len(piece)] = piece
            first, end = self._first_window[place : place + 2].tolist()
            others.numpy()[row] = self._others[first + start : min(first + start + windows, end)].sum(0)
        sums = torch.split(others, [1 + channels for channels, _ in self._others_of], dim=1) if self._width else ()
        return FeatureBatch(
            frame_features=features.transpose(1, 2),
            frames=torch.from_numpy(np.minimum(self._lengths[places] - starts * self._window, frames)),
            means=torch.cat([others[:, :0], *(part[:, 1:] / part[:, :1] for part in sums)], dim=1),
            shapes=tuple((channels, frames // reduction) for channels, reduction in self._others_of),
            clips=torch.from_numpy(clips.copy()),
        )

    def _check_room(self, limit_gb: float) -> None:
        what = f"the features of {len(self._lengths)} clips"
        if self.size > limit_gb * 1e9:
            raise OutputError(
                f"{what} need {size(self.size)}, and the cache {self.folder.parent} may hold {size(limit_gb * 1e9)}",
                hint="raise --cache-limit, or train on fewer clips, or train the encoder too",
            )
        check_disk(self.folder.parent, self.size, what)

    @torch.inference_mode()
    def _encode(self, work: Path, watch: Callable[[int, int], None], stop: threading.Event) -> bool:
        """Write every window's features to the two files; True if all are."""
        numbers, starts = window_starts(np.arange(len(self._lengths)), self._lengths, self._window)
        step = default_batch_size(self._device, self._network.config)
        with ExitStack() as close:
            files = [close.enter_context((work / name).open("xb")) for name in (FRAMES, OTHERS)]
            files[0].write(npy_header((int(self._first_frame[-1]), self._channels), np.dtype(np.float16)))
            files[1].write(npy_header((len(numbers), self._width), np.dtype(np.float32)))
            watch(0, len(numbers))
            for first in range(0, len(numbers), step):
                if stop.is_set():
                    return False
                part = slice(first, first + step)
                features, states = self._windows_of(numbers[part], starts[part])
                files[0].write(features.tobytes())
                files[1].write(states.tobytes())
                watch(min(first + step, len(numbers)), len(numbers))
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        return True

    def _windows_of(
        self, places: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """Real frame features of windows, row after row, and the states of the other parts."""
        batch = self._crops.cut(places, starts, 1)
        mel = dequantise(batch.mel[:, 0].to(self._device), self._log_floor)
        real = batch.frames.to(self._device)
        parts: Features = self._network.mel_features(mel)
        state = self._network.fold(parts, torch.zeros_like(real), real)
        columns = [column for n, total in state[1:] for column in (n[:, :1], total)]
        others = torch.cat(columns, 1).float() if columns else real.new_zeros(len(real), 0).float()
        counts = -(-batch.frames // self._reduction)
        features = parts[0].transpose(1, 2).float().clamp(-_LARGEST, _LARGEST).half().cpu()
        rows = torch.cat([clip[:count] for clip, count in zip(features, counts.tolist(), strict=True)])
        return rows.numpy(), others.cpu().numpy()


def _identity(network: SongModel, dtype: torch.dtype, device: torch.device, content: Sequence[str]) -> str:
    """Hash of all that features depend on."""
    parts = described(network.config)
    digest = hashlib.sha256(
        msgspec.json.encode(
            [
                VERSION,
                [parts[name] for name in ("frontend", "encoder", "mid_levels", "mel_statistics")],
                [STEP, str(dtype), device.type],
                list(content),
            ]
        )
    )
    for module in (network.frontend, network.mel_norm, network.encoder):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
