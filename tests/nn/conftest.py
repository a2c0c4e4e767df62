"""One thread for the small tensors of these tests; and every warning of torch, not only the first of its kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def torch_settings() -> Iterator[None]:
    threads, warn_always = torch.get_num_threads(), torch.is_warn_always_enabled()
    torch.set_num_threads(1)
    torch.set_warn_always(True)  # warnings are errors: in whichever test they occur, not in the first of the process
    yield
    torch.set_num_threads(threads)
    torch.set_warn_always(warn_always)
