"""A bundle that is saved loads the same; one that is anything but whole is refused, and never runs code."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from models.recipe.corpus import read_corpus
from poolembed.bundle import describe, load_bundle, save_bundle
from poolembed.catalog import (
    CONFIG,
    FORMAT,
    HEADS,
    WEIGHTS,
    BundleConfig,
    find_bundle,
    fingerprint,
    list_bundles,
    read_config,
)
from poolembed.errors import BundleError, BundleNotFoundError
from poolembed.nn.config import ModelConfig, PoolingConfig
from poolembed.nn.head import EmbeddingHead, FrameHead
from poolembed.nn.model import SongModel
from tests.conftest import POOLINGS, noise, tiny_config, tiny_heads, tiny_network

ROOT = Path(__file__).parents[1]
SaveTiny = Callable[..., Path]


@pytest.fixture
def bundle(tmp_path: Path, save_tiny: SaveTiny) -> Path:
    return save_tiny(tmp_path)


def edit_config(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((bundle / CONFIG).read_bytes())
    change(config)
    (bundle / CONFIG).write_text(json.dumps(config))


def replace_weights(bundle: Path, weights: bytes, name: str = WEIGHTS) -> None:
    """Other weights, whose hash is the right one."""
    (bundle / name).write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    key = {WEIGHTS: "weights_sha256", HEADS: "heads_sha256"}[name]
    edit_config(bundle, lambda config: config.update({key: digest}))


def assert_refused(bundle: Path, *words: str) -> None:
    """Refused with a message that names the file and says what is wrong."""
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle)
    for word in (str(bundle), *words):
        assert word in str(caught.value)


class TestRoundTrip:
    @pytest.mark.parametrize("kind", POOLINGS)
    def test_every_pooling(self, kind: Any, tmp_path: Path, save_tiny: SaveTiny) -> None:
        pooling = PoolingConfig(kind=kind, alpha_max=9.0, alpha_l2=0.1)
        network = tiny_network(tiny_config(pooling))
        loaded = load_bundle(save_tiny(tmp_path, pooling=pooling))
        assert loaded.network.config == network.config == tiny_config(pooling)
        assert loaded.network.state_dict().keys() == network.state_dict().keys()
        for key, value in network.state_dict().items():
            assert torch.equal(loaded.network.state_dict()[key], value), key
        samples, frames = torch.from_numpy(noise(network.window_samples)).unsqueeze(0), torch.tensor([20])
        with torch.inference_mode():
            assert torch.equal(loaded.network(samples, frames), network(samples, frames))
        assert not loaded.network.training

    def test_card_and_config(self, bundle: Path) -> None:
        loaded = load_bundle(bundle)
        assert loaded.path == bundle
        assert loaded.card.startswith("**tiny is for tests.** Not trained.\n")
        assert (loaded.config.name, loaded.config.license, loaded.config.poolembed_bundle) == (
            "tiny",
            "CC0-1.0",
            1,
        )
        assert loaded.config == read_config(bundle)
        assert sorted(path.name for path in bundle.iterdir()) == ["README.md", "config.json", "model.safetensors"]

    def test_nested_sizes_are_kept_and_leave_the_fingerprint_alone(self, tmp_path: Path, save_tiny: SaveTiny) -> None:
        plain, nested = save_tiny(tmp_path / "a"), save_tiny(tmp_path / "b", nested=(4, 2, 4))
        assert load_bundle(nested).config.nested == (2, 4)
        assert load_bundle(plain).config.nested == ()
        assert load_bundle(plain).fingerprint == load_bundle(nested).fingerprint
        assert b"nested" not in (plain / CONFIG).read_bytes(), "an older poolembed would refuse the bundle"
        with pytest.raises(ValueError, match=r"nested \[2, 8\].*below 8"):
            save_tiny(tmp_path / "c", nested=(2, 8))

    def test_what_came_later_is_written_only_where_it_is_used(self, tmp_path: Path, save_tiny: SaveTiny) -> None:
        plain = save_tiny(tmp_path / "a")
        encoder = msgspec.structs.replace(tiny_config().encoder, context=True)
        config = msgspec.structs.replace(tiny_config(), encoder=encoder)
        network = SongModel(config, tiny_network().frontend.filterbank)
        network.load_state_dict(tiny_network().state_dict())
        save_bundle(tmp_path / "b", network, name="tiny", license="CC0-1.0", card="")
        later = load_bundle(tmp_path / "b")
        assert later.network.config == config
        assert later.config.poolembed_bundle == 2, "an older poolembed says to upgrade"
        assert later.config.weights_sha256 == load_bundle(plain).config.weights_sha256
        assert later.fingerprint != load_bundle(plain).fingerprint
        written = json.loads((plain / CONFIG).read_bytes())
        assert written["poolembed_bundle"] == 1
        assert "context" not in written["model"]["encoder"], "an older poolembed would refuse the bundle"
        edit_config(plain, lambda config: config["model"]["encoder"].update(context=False))
        assert load_bundle(plain).fingerprint == load_bundle(save_tiny(tmp_path / "c")).fingerprint

    def test_a_card_in_any_script(self, tmp_path: Path) -> None:
        save_bundle(tmp_path / "b", tiny_network(), name="b", license="MIT", card="Ünïcödé 🎵\n")
        assert load_bundle(tmp_path / "b").card == "Ünïcödé 🎵\n"
        (tmp_path / "b" / "README.md").write_bytes(b"\xff not UTF-8")
        assert "not UTF-8" in load_bundle(tmp_path / "b").card

    def test_saving_twice_gives_the_same_bytes(self, tmp_path: Path, save_tiny: SaveTiny) -> None:
        first, second = save_tiny(tmp_path / "a"), save_tiny(tmp_path / "b")
        for name in (CONFIG, WEIGHTS):
            assert (first / name).read_bytes() == (second / name).read_bytes()

    def test_nothing_is_overwritten(self, bundle: Path) -> None:
        before = {path.name: path.read_bytes() for path in bundle.iterdir()}
        with pytest.raises(BundleError, match="exists"):
            save_bundle(bundle, tiny_network(seed=1), name="x", license="MIT", card="")
        assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before

    def test_it_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(BundleError, match="cannot write"):
            save_bundle(tmp_path / "file" / "bundle", tiny_network(), name="x", license="MIT", card="")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        with pytest.raises(BundleError, match="exists"):
            save_bundle(tmp_path / "file", tiny_network(), name="x", license="MIT", card="")

    @pytest.mark.parametrize("failing", ["model.safetensors", "README.md", "config.json"])
    def test_a_full_disk_leaves_nothing(
        self, failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_tiny: SaveTiny
    ) -> None:
        write = Path.write_bytes

        def full(path: Path, data: bytes) -> int:
            if path.name == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(path, data)

        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "history.jsonl").write_text("{}")
        monkeypatch.setattr(Path, "write_bytes", full)
        for name in ("new", "run"):
            with pytest.raises(BundleError, match="No space left"):
                save_tiny(tmp_path, name)
        assert [path.name for path in tmp_path.rglob("*")] == ["run", "history.jsonl"]
        monkeypatch.undo()
        for name in ("new", "run"):
            load_bundle(save_tiny(tmp_path, name))

    def test_into_the_directory_of_a_training_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_tiny: SaveTiny
    ) -> None:
        """What is there stays; ``config.json``, which makes it a bundle, comes last and whole."""
        run = tmp_path / "run"
        (run / "cache").mkdir(parents=True)
        (run / "run.toml").write_text("epochs = 3")
        (run / "README.md").write_text("an older card")
        moved: list[str] = []
        replace = Path.replace

        def noted(path: Path, target: Path) -> Path:
            assert path.stat().st_size > 0
            moved.append(Path(target).name)
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", noted)
        save_tiny(tmp_path, "run")
        assert moved[-1] == CONFIG
        assert sorted(path.name for path in run.iterdir()) == [
            "README.md",
            "cache",
            "config.json",
            "model.safetensors",
            "run.toml",
        ]
        loaded = load_bundle(run)
        assert loaded.fingerprint == load_bundle(save_tiny(tmp_path, "new")).fingerprint
        assert loaded.card.startswith("**run is for tests.**")
        own = sum((run / name).stat().st_size for name in ("README.md", "config.json", "model.safetensors"))
        assert describe(run)["bytes"] == own
        with pytest.raises(BundleError, match="exists"):
            save_tiny(tmp_path, "run", seed=1)


class TestHeads:
    """Classifiers beside the model: kept whole, or refused; and no part of what the model is."""

    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Path:
        save_bundle(tmp_path / "b", tiny_network(), name="b", license="MIT", card="b", heads=tiny_heads())
        return tmp_path / "b"

    def test_round_trip(self, bundle: Path) -> None:
        loaded, heads = load_bundle(bundle), tiny_heads()
        assert [head.config for head in loaded.heads] == [head.config for head in heads] == list(loaded.config.heads)
        assert [type(head) for head in loaded.heads] == [EmbeddingHead, FrameHead]
        for found, saved in zip(loaded.heads, heads, strict=True):
            assert not found.training
            assert found.state_dict().keys() == saved.state_dict().keys()
            for key, value in saved.state_dict().items():
                assert torch.equal(found.state_dict()[key], value), key
        assert sorted(path.name for path in bundle.iterdir()) == [
            "README.md",
            "config.json",
            "heads.safetensors",
            "model.safetensors",
        ]
        assert describe(bundle)["bytes"] == sum(path.stat().st_size for path in bundle.iterdir())

    def test_the_model_is_the_same_without_them(self, bundle: Path, tmp_path: Path) -> None:
        for name, heads in (("none", []), ("others", tiny_heads()[1:])):
            save_bundle(tmp_path / name, tiny_network(), name="b", license="MIT", card="b", heads=heads)
            other = load_bundle(tmp_path / name)
            assert len(other.heads) == len(heads)
            assert other.fingerprint == load_bundle(bundle).fingerprint
        assert "heads" not in json.loads((tmp_path / "none" / CONFIG).read_bytes())
        assert not (tmp_path / "none" / HEADS).exists()

    def test_two_of_one_column(self, tmp_path: Path) -> None:
        heads = [*tiny_heads(), *tiny_heads()[:1]]
        with pytest.raises(ValueError, match="sound"):
            save_bundle(tmp_path / "b", tiny_network(), name="b", license="MIT", card="b", heads=heads)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "edit",
        [
            lambda config: config.pop("heads"),
            lambda config: config.pop("heads_sha256"),
            lambda config: config.update(heads_sha256="0"),
            lambda config: config["heads"].append(config["heads"][0]),
            lambda config: config["heads"][0].update(surprise=1),
            lambda config: config["heads"][0].update(labels=[]),
            lambda config: config["heads"][0].update(labels=["dog", "dog", "cat"]),
            lambda config: config["heads"][0].update(pool="predictions"),
            lambda config: config["heads"][1].update(pooling=None),
            lambda config: config["heads"][1]["pooling"].update(kind="mean+max"),
            lambda config: config["heads"][1]["pooling"].update(kind="median"),
        ],
    )
    def test_configs_that_cannot_be(self, bundle: Path, edit: Callable[[dict[str, Any]], object]) -> None:
        edit_config(bundle, edit)
        assert_refused(bundle, CONFIG)

    def test_other_labels_than_weights(self, bundle: Path) -> None:
        edit_config(bundle, lambda config: config["heads"][0].update(labels=["dog", "cat"]))
        assert_refused(bundle, HEADS, "do not fit")

    def test_damage(self, bundle: Path) -> None:
        weights = (bundle / HEADS).read_bytes()
        flipped = bytearray(weights)
        flipped[-1] ^= 1
        (bundle / HEADS).write_bytes(flipped)
        assert_refused(bundle, HEADS, "SHA-256")
        for data in (b"", weights[:-1], b"garbage" * 99, pickle.dumps(weights)):
            replace_weights(bundle, data, HEADS)
            assert_refused(bundle, HEADS)
        tensors = load(weights)
        tensors["2.weight"] = torch.zeros(1)
        replace_weights(bundle, save(tensors), HEADS)
        assert_refused(bundle, HEADS, "do not fit")
        (bundle / HEADS).unlink()
        assert_refused(bundle, HEADS)


class TestConfig:
    @pytest.mark.parametrize(
        "where", [(), ("model",), ("model", "frontend"), ("model", "encoder"), ("model", "pooling")], ids="/".join
    )
    def test_an_unknown_key(self, bundle: Path, where: tuple[str, ...]) -> None:
        def add(config: dict[str, Any]) -> None:
            for key in where:
                config = config[key]
            config["surprise"] = 1

        edit_config(bundle, add)
        assert_refused(bundle, "surprise")

    @pytest.mark.parametrize("version", [FORMAT + 1, 99, 0, -1])
    def test_another_version(self, bundle: Path, version: int) -> None:
        # Other keys too: it is the version that has to be named then.
        edit_config(bundle, lambda config: config.update(poolembed_bundle=version, future={}))
        assert_refused(bundle, f"format {version}", "upgrade" if version > FORMAT else "convert")

    @pytest.mark.parametrize("version", [None, "1", 1.5, [], {}])
    def test_a_version_that_is_none(self, bundle: Path, version: Any) -> None:
        edit_config(bundle, lambda config: config.update(poolembed_bundle=version))
        assert_refused(bundle, CONFIG)

    @pytest.mark.parametrize("key", ["poolembed_bundle", "name", "license", "model", "weights_sha256"])
    def test_a_missing_key(self, bundle: Path, key: str) -> None:
        edit_config(bundle, lambda config: config.pop(key))
        assert_refused(bundle, key)

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b'{"name": "\xff"}', b"{" * 100_000])
    def test_no_json(self, bundle: Path, data: bytes) -> None:
        (bundle / CONFIG).write_bytes(data)
        assert_refused(bundle, CONFIG)

    def test_bad_utf8_in_a_value(self, bundle: Path) -> None:
        (bundle / CONFIG).write_bytes((bundle / CONFIG).read_bytes().replace(b'"tiny"', b'"\xff\xfe"'))
        assert_refused(bundle, CONFIG)

    @pytest.mark.parametrize(
        ("part", "key", "value"),
        [
            ("frontend", "sample_rate", -1),
            ("frontend", "sample_rate", 0),
            ("frontend", "sample_rate", 8000.5),
            ("frontend", "n_fft", 0),
            ("frontend", "n_fft", 255),
            ("frontend", "hop_length", 0),
            ("frontend", "hop_length", 257),
            ("frontend", "n_mels", -16),
            ("frontend", "f_min", -1.0),
            ("frontend", "f_max", 0.0),
            ("frontend", "log_floor", 0.0),
            ("frontend", "log_floor", -1e-5),
            ("encoder", "window_frames", 0),
            ("encoder", "window_frames", 30),
            ("encoder", "widths", []),
            ("encoder", "widths", [4, -8]),
            ("encoder", "widths", [4]),
            ("encoder", "depth", 0),
            ("encoder", "time_strides", [2, 0]),
            ("encoder", "time_strides", [2]),
            ("encoder", "frame_features", -1),
            ("pooling", "kind", "median"),
            ("pooling", "scope", "song"),
            ("pooling", "alpha", -1.0),
            ("pooling", "alpha_max", 0.0),
            ("pooling", "alpha_max", 0.5),  # below the alpha that it starts at
            ("pooling", "alpha_l2", -0.1),
            ("pooling", "p", 0.5),
            ("pooling", "p", "three"),
            (None, "embedding_size", 0),
            (None, "embedding_size", -8),
            (None, "embedding_size", 10**15),  # more than fits any memory
            (None, "mid_levels", "yes"),
        ],
    )
    def test_values_that_cannot_be(self, bundle: Path, part: str | None, key: str, value: Any) -> None:
        def change(config: dict[str, Any]) -> None:
            (config["model"][part] if part else config["model"])[key] = value

        edit_config(bundle, change)
        assert_refused(bundle)

    @pytest.mark.parametrize("digest", ["", "f" * 63, "F" * 64, "g" * 64, None, "f" * 65, "a\n" + "f" * 64])
    def test_a_hash_that_is_none(self, bundle: Path, digest: Any) -> None:
        edit_config(bundle, lambda config: config.update(weights_sha256=digest))
        assert_refused(bundle, CONFIG)


class TestWeights:
    def test_any_flipped_bit(self, bundle: Path) -> None:
        weights = (bundle / WEIGHTS).read_bytes()
        for at in np.random.default_rng(0).integers(len(weights), size=20):
            flipped = bytearray(weights)
            flipped[at] ^= 1 << int(at) % 8
            (bundle / WEIGHTS).write_bytes(flipped)
            assert_refused(bundle, WEIGHTS, "SHA-256")

    @pytest.mark.parametrize("keep", [0, 1, 8, 100, -1])
    def test_truncated(self, bundle: Path, keep: int) -> None:
        weights = (bundle / WEIGHTS).read_bytes()[:keep]
        (bundle / WEIGHTS).write_bytes(weights)
        assert_refused(bundle, WEIGHTS, "SHA-256" if keep < 0 else "numbers")
        replace_weights(bundle, weights)
        assert_refused(bundle, WEIGHTS)

    @pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff" * 64, b"garbage" * 99])
    def test_not_safetensors(self, bundle: Path, data: bytes) -> None:
        replace_weights(bundle, data)
        assert_refused(bundle, WEIGHTS)

    @pytest.mark.parametrize(
        "edit",
        [
            lambda tensors: tensors.pop("project.weight"),
            lambda tensors: tensors.update({"project.weight": torch.zeros(3, 3)}),
            lambda tensors: tensors.update({"project.bias": tensors["project.bias"].reshape(1, -1)}),
            lambda tensors: tensors.update({"extra": torch.zeros(1)}),
            lambda tensors: tensors.clear(),
        ],
        ids=["missing", "other shape", "one more axis", "extra", "none at all"],
    )
    def test_other_tensors(self, bundle: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
        tensors = load((bundle / WEIGHTS).read_bytes())
        edit(tensors)
        replace_weights(bundle, save(tensors))
        assert_refused(bundle, WEIGHTS, "do not fit" if tensors else "more than")

    def test_a_pickle_is_never_opened(self, bundle: Path, tmp_path: Path) -> None:
        class Payload:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(tmp_path / "owned"),)

        for number, data in enumerate((pickle.dumps(Payload()), b"")):
            if number:
                torch.save({"project.weight": Payload()}, bundle / WEIGHTS)
                data = (bundle / WEIGHTS).read_bytes()  # noqa: PLW2901
            replace_weights(bundle, data)
            assert_refused(bundle, WEIGHTS)
        assert not (tmp_path / "owned").exists()
        pickle.loads(pickle.dumps(Payload()))  # noqa: S301 - shows that it would have
        assert (tmp_path / "owned").exists()

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md"])
    def test_a_missing_file(self, bundle: Path, name: str) -> None:
        (bundle / name).unlink()
        with pytest.raises(BundleError) as caught:
            load_bundle(bundle)
        assert name in str(caught.value)

    def test_a_directory_in_the_place_of_a_file(self, bundle: Path) -> None:
        (bundle / WEIGHTS).unlink()
        (bundle / WEIGHTS).mkdir()
        assert_refused(bundle, WEIGHTS)


class TestFinding:
    @pytest.fixture(autouse=True)
    def models(self, bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("POOLEMBED_MODELS", str(bundles))

    def test_by_name_and_by_path(self, bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert find_bundle("gem") == bundles / "gem"
        assert find_bundle(bundles / "gem") == bundles / "gem"
        assert find_bundle(str(bundles / "gem")) == bundles / "gem"
        monkeypatch.delenv("POOLEMBED_MODELS")
        monkeypatch.chdir(bundles)
        assert find_bundle("gem").resolve() == bundles / "gem"
        assert find_bundle("./gem").resolve() == bundles / "gem"
        assert find_bundle("gem/").resolve() == bundles / "gem"

    def test_a_name_comes_before_a_directory_that_is_called_so(
        self, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_tiny: SaveTiny
    ) -> None:
        here = save_tiny(tmp_path, "gem")
        monkeypatch.chdir(tmp_path)
        assert find_bundle("gem") == bundles / "gem"
        assert find_bundle("./gem").resolve() == here

    def test_home(self, bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(bundles))
        assert find_bundle("~/gem") == bundles / "gem"
        monkeypatch.setenv("POOLEMBED_MODELS", "~")
        assert find_bundle("gem") == bundles / "gem"

    @pytest.mark.parametrize(
        "name", ["gemm", "GEM", "", ".", "/", "/nowhere/at all", "a\nb", "~no-such-user/x", "a" * 300, "nul\0byte"]
    )
    def test_a_wrong_name_lists_the_right_ones(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(BundleNotFoundError) as caught:
            load_bundle(name)
        assert {"attention", "autopool", "gem", "other"} <= set(str(caught.value).replace(",", " ").split())

    def test_no_models_at_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("POOLEMBED_MODELS")
        monkeypatch.setattr("poolembed.catalog.__file__", str(tmp_path / "lib" / "poolembed" / "catalog.py"))
        assert list_bundles() == []
        with pytest.raises(BundleNotFoundError, match="none"):
            load_bundle("base")

    def test_several_directories_first_one_first(
        self, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_tiny: SaveTiny
    ) -> None:
        mine = [save_tiny(tmp_path, name, seed=7) for name in ("gem", "zebra")]
        entries = [tmp_path, Path("/nowhere"), bundles]
        monkeypatch.setenv("POOLEMBED_MODELS", os.pathsep.join(["", *map(str, entries), ""]))
        assert find_bundle("gem") == mine[0]
        assert find_bundle("zebra") == mine[1]
        assert find_bundle("mean") == bundles / "mean"
        names = [path.name for path in list_bundles()]
        assert names == sorted(set(names))
        assert {"gem", "zebra", "mean"} <= set(names)

    def test_what_is_no_bundle_is_not_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("POOLEMBED_MODELS", str(tmp_path))
        assert not {"folder", "file"} & {path.name for path in list_bundles()}

    def test_those_that_ship(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("POOLEMBED_MODELS")
        assert find_bundle("base") == ROOT / "models" / "base"


class TestFingerprint:
    def test_the_name_and_the_licence_are_no_part_of_it(self, tmp_path: Path, save_tiny: SaveTiny) -> None:
        first, second = (load_bundle(save_tiny(tmp_path, name)) for name in ("one", "two"))
        assert first.config.name != second.config.name
        assert first.fingerprint == second.fingerprint == fingerprint(first.config)
        edit_config(second.path, lambda config: config.update(license="MIT"))
        (second.path / "README.md").write_text("another card")
        assert load_bundle(second.path).fingerprint == first.fingerprint

    def test_the_order_of_keys_and_what_is_spelt_out_are_no_part_of_it(self, bundle: Path) -> None:
        before = load_bundle(bundle).fingerprint
        config = json.loads((bundle / CONFIG).read_bytes())
        config["model"] = dict(reversed(config["model"].items()))
        del config["model"]["frontend"]["f_min"]  # its default
        (bundle / CONFIG).write_text(json.dumps(dict(reversed(config.items()))))
        assert load_bundle(bundle).fingerprint == before

    def test_weights_and_model_are(self, tmp_path: Path, save_tiny: SaveTiny) -> None:
        made = [
            save_tiny(tmp_path, "a"),
            save_tiny(tmp_path, "b", seed=1),
            save_tiny(tmp_path, "c", pooling=PoolingConfig(alpha_max=50.0)),
            save_tiny(tmp_path, "d", embedding_size=9),
            save_tiny(tmp_path, "e", pooling=PoolingConfig(alpha_l2=0.5)),
        ]
        assert len({load_bundle(path).fingerprint for path in made}) == len(made)
        before = load_bundle(made[0]).fingerprint
        edit_config(made[0], lambda config: config["model"]["frontend"].update(log_floor=1e-6))
        assert load_bundle(made[0]).fingerprint != before

    def test_it_is_always_the_same(self) -> None:
        # Directories of embeddings remember it, so a release that changes it makes everyone embed anew.
        config = BundleConfig(
            poolembed_bundle=1, name="any", license="any", model=ModelConfig(), weights_sha256="0" * 64
        )
        assert fingerprint(config) == "c48559c363b3a44e9da63c6854be7a92ec42f313cf98c884cf494b5776c9012f"


class TestDescribe:
    def test_what_is_listed(self, bundle: Path) -> None:
        described = describe(bundle)
        assert described["name"] == "tiny"
        assert described["embedding_size"] == 8
        assert described["sample_rate"] == 8000
        assert described["parameters"] == sum(p.numel() for p in tiny_network().parameters())
        assert described["bytes"] == sum(path.stat().st_size for path in bundle.iterdir())
        assert described["pooling"] == "autopool per channel"
        assert described["license"] == "CC0-1.0"
        assert described["about"] == "tiny is for tests. Not trained."

    def test_a_damaged_one(self, bundle: Path) -> None:
        (bundle / CONFIG).write_text("{")
        with pytest.raises(BundleError):
            describe(bundle)


def test_the_shipped_model_is_nested_and_names_who_made_what_it_was_trained_on() -> None:
    folder = ROOT / "models" / "base"
    assert read_config(folder).nested == (64, 128, 256)
    assert read_config(folder).model.pooling.kind == "autopool"
    assert str(describe(folder)["about"])
    assert "ATTRIBUTION.md" in (folder / "README.md").read_text()
    attributed = (folder / "ATTRIBUTION.md").read_text()
    assert all(f"| {package.name} " in attributed for package in read_corpus())


class TestHostile:
    """Nothing is built, read or believed before it is looked at."""

    @pytest.mark.parametrize(
        ("part", "field", "value"),
        [
            ("frontend", "sample_rate", 10**9),
            ("frontend", "n_fft", 10**9),
            ("frontend", "hop_length", 10**9),
            ("frontend", "n_mels", 10**9),
            ("frontend", "f_max", 1e300),
            ("encoder", "depth", 10**9),
            ("encoder", "widths", [10**9, 10**9]),
            ("encoder", "widths", [8] * 10**4),
            ("encoder", "window_frames", 10**9),
            ("encoder", "frame_features", 10**9),
            ("encoder", "time_strides", [10**9, 10**9]),
            (None, "embedding_size", 10**9),
        ],
    )
    def test_sizes_have_bounds_that_the_error_states(
        self, bundle: Path, part: str | None, field: str, value: object
    ) -> None:
        def edit(config: dict[str, Any]) -> None:
            model = config["model"]
            (model if part is None else model[part])[field] = value

        edit_config(bundle, edit)
        assert_refused(bundle, CONFIG, field)

    def test_a_window_has_a_bound_too(self, bundle: Path) -> None:
        edit_config(
            bundle, lambda config: config["model"]["encoder"].update(window_frames=1 << 16, widths=[4096, 4096])
        )
        assert_refused(bundle, CONFIG, "one window makes")

    def test_more_numbers_than_the_file_has_bytes_are_not_made_room_for(self, bundle: Path) -> None:
        edit_config(bundle, lambda config: config["model"].update(embedding_size=1 << 16))
        assert_refused(bundle, WEIGHTS, "bytes, and the model that config.json describes has more than")
        with pytest.raises(BundleError, match="has more than"):
            describe(bundle)

    def test_heads_neither(self, tmp_path: Path, save_tiny: SaveTiny) -> None:
        bundle = save_tiny(tmp_path, heads=tiny_heads())
        labels = [str(number) for number in range(100_000)]
        edit_config(bundle, lambda config: config["heads"][0].update(labels=labels))
        assert_refused(bundle, "heads.safetensors", "has more than")

    def test_the_kernels_are_nearly_all_of_a_model(self) -> None:
        for config in (ModelConfig(), tiny_config(), tiny_config(mid_levels=False)):
            parameters = sum(p.numel() for p in SongModel(config).parameters())
            assert 0.6 * parameters < config.kernels <= parameters
        assert ModelConfig().kernels > 0.95 * sum(p.numel() for p in SongModel(ModelConfig()).parameters())

    @pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")
    @pytest.mark.parametrize("file", [CONFIG, WEIGHTS, "heads.safetensors", "README.md"])
    def test_pipes_and_devices_are_not_read(self, tmp_path: Path, save_tiny: SaveTiny, file: str) -> None:
        bundle = save_tiny(tmp_path, heads=tiny_heads())
        (bundle / file).unlink()
        os.mkfifo(bundle / file)
        with pytest.raises(BundleError):
            load_bundle(bundle)
        (bundle / file).unlink()
        (bundle / file).symlink_to("/dev/zero")
        with pytest.raises(BundleError):
            load_bundle(bundle)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("name", ["project.weight", "encoder.stages.0.0.norm.running_var", "mel_norm.running_mean"])
    def test_weights_that_are_no_numbers_are_named(self, bundle: Path, name: str, value: float) -> None:
        tensors = load((bundle / WEIGHTS).read_bytes())
        tensors[name].view(-1)[0] = value
        replace_weights(bundle, save(tensors))
        assert_refused(bundle, WEIGHTS, f"NaN or infinite numbers in {name}")

    def test_a_variance_below_zero(self, bundle: Path) -> None:
        tensors = load((bundle / WEIGHTS).read_bytes())
        tensors["norm.running_var"][0] = -1.0
        replace_weights(bundle, save(tensors))
        assert_refused(bundle, WEIGHTS, "norm.running_var")

    def test_an_infinite_alpha_is_the_maximum_and_nan_is_nothing(self, bundle: Path) -> None:
        tensors = load((bundle / WEIGHTS).read_bytes())
        tensors["pools.0.alpha"][0] = math.inf
        replace_weights(bundle, save(tensors))
        assert load_bundle(bundle).network.state_dict()["pools.0.alpha"][0] == math.inf
        tensors["pools.0.alpha"][0] = math.nan
        replace_weights(bundle, save(tensors))
        assert_refused(bundle, "pools.0.alpha")

    @pytest.mark.parametrize(
        "text",
        ["[" * 100_000, '{"a":' * 100_000, " " * 1000, "\0", '{"poolembed_bundle": 1e400}', '{"poolembed_bundle": 1}'],
        ids=["lists", "objects", "spaces", "NUL", "a number", "nothing else"],
    )
    def test_a_config_that_is_none(self, bundle: Path, text: str) -> None:
        (bundle / CONFIG).write_text(text)
        assert_refused(bundle, CONFIG)
        (bundle / CONFIG).write_bytes(text.encode("utf-16"))
        assert_refused(bundle, CONFIG)

    def test_a_config_of_a_gigabyte_is_not_read(self, bundle: Path) -> None:
        with (bundle / CONFIG).open("r+b") as file:
            file.truncate(1 << 30)  # no room is taken where files may have holes
        assert_refused(bundle, CONFIG, "bytes, and 16,777,216 at most")

    def test_weights_that_are_too_many_are_not_read(self, bundle: Path) -> None:
        with (bundle / WEIGHTS).open("r+b") as file:
            file.truncate(1 << 40)
        assert_refused(bundle, WEIGHTS, "at most are expected")

    def test_a_key_that_comes_twice(self, bundle: Path) -> None:
        text = (bundle / CONFIG).read_text()
        (bundle / CONFIG).write_text(text.replace('"name":', '"name": "other", "name":', 1))
        assert_refused(bundle, CONFIG, "'name' twice")
