"""run.toml: whatever a run can be comes back the same, and whatever is wrong with a file is said in words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolembed.errors import OutputError, UsageError
from poolembed.nn.config import EncoderConfig, ModelConfig, PoolingKind
from poolembed.train.config import AugmentConfig, ObjectiveConfig, TrainConfig
from poolembed.train.configfile import as_config, as_settings, format_config, read_config, read_settings, write_config

TEXT = st.text(max_size=20)
SHARE = st.floats(0, 1, exclude_max=True)
POSITIVE = st.floats(0, 1e9, exclude_min=True)


def objectives() -> st.SearchStrategy[ObjectiveConfig]:
    plain = st.builds(
        ObjectiveConfig,
        kind=st.sampled_from(["classification", "supcon", "contrastive"]),
        weight=POSITIVE,
        column=TEXT,
        temperature=POSITIVE,
    )
    return plain | st.builds(ObjectiveConfig, kind=st.just("distill"), targets=TEXT)


CONFIGS = st.builds(
    TrainConfig,
    data=TEXT,
    output=TEXT,
    init=TEXT,
    freeze=st.sampled_from(["none", "encoder"]),
    model=st.none() | st.just(ModelConfig(encoder=EncoderConfig(widths=(1, 2), time_strides=(2, 1)), mid_levels=False)),
    pooling=st.none() | st.sampled_from(get_args(PoolingKind)),
    alpha=st.none() | st.floats(0, 1e9),
    alpha_max=st.none() | POSITIVE,
    p=st.none() | st.floats(1, 1e9),
    objectives=st.lists(objectives(), min_size=1, max_size=3).map(tuple),
    nested=st.lists(st.integers(1, 600), max_size=3).map(tuple),
    seconds=st.none() | POSITIVE,
    epochs=st.integers(1, 2**60),
    lr=POSITIVE,
    warmup=SHARE,
    balance=st.booleans(),
    valid_fold=st.none() | TEXT,
    workers=st.none() | st.integers(1, 99),
    augment=st.builds(AugmentConfig, gain_db=st.floats(0, 99), time_mask=SHARE, mixup=st.floats(0, 9)),
)


@given(CONFIGS)
def test_whatever_a_run_can_be_comes_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, config: TrainConfig
) -> None:
    path = tmp_path_factory.getbasetemp() / "run.toml"
    write_config(path, config)
    assert read_config(path) == config


def test_a_path_of_any_bytes_comes_back_the_same(tmp_path: Path) -> None:
    config = TrainConfig(data=os.fsdecode(b"clips\xff\n\"'"), output="o")
    write_config(tmp_path / "run.toml", config)
    assert read_config(tmp_path / "run.toml") == config


def test_every_key_is_written_so_that_other_defaults_change_nothing() -> None:
    config = TrainConfig(data="d", output="o", model=ModelConfig())
    for struct, settings in (
        (config, as_settings(config)),
        (config.augment, as_settings(config)["augment"]),
        (config.objectives[0], as_settings(config)["objectives"][0]),
        (config.model, as_settings(config)["model"]),
    ):
        assert struct is not None
        named = {field.name for field in msgspec.structs.fields(struct) if getattr(struct, field.name) is not None}
        assert set(settings) == named


def test_a_file_may_have_but_some_keys(tmp_path: Path) -> None:
    (tmp_path / "some.toml").write_text("epochs = 3\n[augment]\nmixup = 1\n")
    assert read_settings(tmp_path / "some.toml") == {"epochs": 3, "augment": {"mixup": 1}}


def test_what_is_there_stays_if_the_new_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    write_config(path, TrainConfig(data="d", output="o"))
    before = path.read_bytes()
    (tmp_path / "run.toml.part").mkdir()
    with pytest.raises(OutputError, match=r"run\.toml"):
        write_config(path, TrainConfig(data="other", output="o"))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3", ["epoch is not known", "did you mean epochs?"]),
        ("[augment]\nmxup = 1", ["augment.mxup is not known", "did you mean mixup?"]),
        (
            "[augment]\nzzz = 1",
            [
                "augment.zzz is not known",
                "equalizer_db, low_pass, noise, time_mask, band_mask, mixup, resized_crop, shift",
            ],
        ),
        ("epochs = 0", ["epochs = 0 must be a whole number >= 1"]),
        ("epochs = 1.5", ["epochs = 1.5 must be a whole number, not a number"]),
        ("lr = 'fast'", ["lr = 'fast' must be a number, not text"]),
        ("lr = nan", ["lr = nan must be a number > 0"]),
        ("valid = 1", ["valid = 1 must be a number < 1"]),
        ("balance = 'yes'", ["balance = 'yes' must be true or false, not text"]),
        ("workers = 'all'", ["workers = 'all' must be a whole number, not text"]),
        ("pooling = 'gme'", ["pooling = 'gme' is not among", "gem", "attentive-statistics"]),
        ("augment = 3", ["augment = 3 must be a table, not a whole number"]),
        ("objectives = 'distill'", ["objectives = 'distill' must be a list, not text"]),
        ("[[objectives]]\nkind = 'supercon'", ["objectives[0].kind = 'supercon' is not among", "supcon"]),
        ("[[objectives]]\n[[objectives]]\nkind = 'distill'", ["objectives[1]: targets belong to"]),
        ("[model.encoder]\nwidths = [8, 0]", ["model.encoder.widths[1] = 0 must be a whole number >= 1"]),
        ("[model.frontend]\nhop_length = 4096", ["model.frontend: hop_length 4096 must not exceed"]),
        ("epochs = = 3", ["is not TOML", "line 1"]),
        ("\ufeffepochs = 3", ["is not TOML"]),
    ],
)
def test_what_is_wrong_is_said_in_words(text: str, said: list[str], tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_settings(path)
    assert all(part in str(caught.value) for part in [str(path), *said]), str(caught.value)
    assert "`" not in str(caught.value).replace("`poolembed", "")
    assert "$" not in str(caught.value)


def test_a_file_that_is_not_there_and_a_run_without_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nothing\.toml: No such file"):
        read_config(tmp_path / "nothing.toml")
    (tmp_path / "run.toml").write_text("output = 'o'")
    with pytest.raises(UsageError, match=r"run\.toml: data is missing"):
        read_config(tmp_path / "run.toml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
        lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXT, values, max_size=3),
        max_leaves=5,
    ),
    st.sampled_from([field.name for field in msgspec.structs.fields(TrainConfig)]),
)
def test_any_value_of_any_key_is_taken_or_refused_in_words(value: Any, key: str) -> None:
    try:
        config = as_config({"data": "d", "output": "o", key: value}, str)
    except UsageError as error:
        assert error.message.startswith(key)
    else:
        assert as_config(as_settings(config), str) == config
        assert format_config(config)
