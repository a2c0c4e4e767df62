"""Google's speech embedding (Lin et al., Training keyword spotters with limited and synthesized speech data, 2020).

The two networks lie as TensorFlow Lite files in the PyPI wheel pyopen-wakeword, as openWakeWord converted them; by its
account they are Apache-2.0, as Google gave them out. Its wake-word models are not free and are not opened. Needs PyPI's
``ai-edge-litert``.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_FRAMES, _HOP = 76, 8  # mel frames of 10 ms that an embedding sees, and from one embedding to the next
_BESIDE = 12_000  # samples of silence before and after a clip, so that a word at its edge is heard whole


class SpeechTeacher:
    """The networks of the wheel; call it with clips.

    Args:
        wheel: ``pyopen_wakeword-1.1.0-*.whl``.
    """

    sample_rate = 16_000
    outputs = ("words",)

    def __init__(self, wheel: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped,import-not-found,unused-ignore]

        with zipfile.ZipFile(wheel) as files:
            self._mel, self._embed = (
                Interpreter(model_content=files.read(f"pyopen_wakeword/models/{name}.tflite"), num_threads=1)
                for name in ("melspectrogram", "embedding_model")
            )

    def __call__(self, samples: Tensor) -> dict[str, Tensor]:
        """Mono clips of one length (B, n) -> the mean of their embeddings over time, (B, 96)."""
        clips = np.pad(samples.numpy(), ((0, 0), (_BESIDE, _BESIDE))) * np.float32(32_768)
        mel = np.stack([_run(self._mel, clip[None])[0, 0] for clip in clips]) / np.float32(10) + np.float32(2)
        places = range(0, mel.shape[1] - _FRAMES + 1, _HOP)
        windows = np.stack([mel[:, place : place + _FRAMES] for place in places], 1)
        found = _run(self._embed, windows.reshape(-1, *windows.shape[2:], 1).astype(np.float32)).reshape(
            len(clips), len(places), -1
        )
        return {"words": torch.from_numpy(found.mean(1))}


def _run(network: object, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The output of a TensorFlow Lite network."""
    place = network.get_input_details()[0]["index"]  # type: ignore[attr-defined]
    if tuple(network.get_input_details()[0]["shape"]) != inputs.shape:  # type: ignore[attr-defined]
        network.resize_tensor_input(place, inputs.shape)  # type: ignore[attr-defined]
        network.allocate_tensors()  # type: ignore[attr-defined]
    network.set_tensor(place, inputs)  # type: ignore[attr-defined]
    network.invoke()  # type: ignore[attr-defined]
    output: NDArray[np.float32] = network.get_tensor(network.get_output_details()[0]["index"])  # type: ignore[attr-defined]
    return output
