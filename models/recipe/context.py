"""The same weights in another network: ``python -m models.recipe.context BUNDLE OUT`` writes what training starts from.

Windows of the new one are encoded with the context that their features depend on, and perhaps with a low-pass in time
before every stride (`EncoderConfig`); neither has weights of its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from poolembed.bundle import load_bundle, save_bundle
from poolembed.nn.model import SongModel


def main(arguments: list[str] | None = None) -> int:
    """Write the bundle."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.context", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path, help="the bundle's directory; it must not be there")
    parser.add_argument("--taps", type=int, default=1, choices=(1, 3, 5), help="of the low-pass; 1 is none")
    options = parser.parse_args(arguments)
    bundle = load_bundle(options.bundle)
    encoder = msgspec.structs.replace(bundle.network.config.encoder, context=True, low_pass_taps=options.taps)
    config = msgspec.structs.replace(bundle.network.config, encoder=encoder)
    network = SongModel(config, bundle.network.frontend.filterbank)
    network.load_state_dict(bundle.network.state_dict())
    save_bundle(
        options.out,
        network,
        name=bundle.config.name,
        license=bundle.config.license,
        card=bundle.card,
        nested=bundle.config.nested,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
