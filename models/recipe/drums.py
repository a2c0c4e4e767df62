"""Drum classes: of General MIDI keys, and of drum samples by the name of their file."""

from __future__ import annotations

import re

GM_KEYS: dict[int, str] = {
    **dict.fromkeys((35, 36), "kick"),
    **dict.fromkeys((38, 40), "snare"),
    37: "rim",
    39: "clap",
    42: "hihat closed",
    44: "hihat pedal",
    46: "hihat open",
    **dict.fromkeys((41, 43, 45, 47, 48, 50), "tom"),
    **dict.fromkeys((49, 57), "crash"),
    **dict.fromkeys((51, 59), "ride"),
    53: "ride bell",
    52: "china",
    55: "splash",
    54: "tambourine",
    56: "cowbell",
    58: "vibraslap",
    **dict.fromkeys((60, 61), "bongo"),
    **dict.fromkeys((62, 63, 64), "conga"),
    **dict.fromkeys((65, 66), "timbale"),
    **dict.fromkeys((67, 68), "agogo"),
    69: "cabasa",
    70: "maracas",
    **dict.fromkeys((71, 72), "whistle"),
    **dict.fromkeys((73, 74), "guiro"),
    75: "claves",
    **dict.fromkeys((76, 77), "woodblock"),
    **dict.fromkeys((78, 79), "cuica"),
    **dict.fromkeys((80, 81), "triangle"),
}
"""Keys of General MIDI's percussion channel."""

_WORD = r"(?:^|[^a-z])"
_PATTERNS: tuple[tuple[str, str | None], ...] = (
    (r"empty|beats?_|loop|misc_burp|^[xy]fx_", None),
    (r"tabla", "tabla"),
    (r"djembe|sangban", "djembe"),
    (r"cow ?bell|" + _WORD + r"(?:cb|mc_cb)\d?_", "cowbell"),
    (r"agogo", "agogo"),
    (r"tambourine", "tambourine"),
    (r"shaker|fxshake|maraca", "maracas"),
    (r"wood ?block|elec_wood", "woodblock"),
    (r"clave", "claves"),
    (r"conga", "conga"),
    (r"bongo", "bongo"),
    (r"triangle", "triangle"),
    (r"clap", "clap"),
    (r"rim ?shot|(?<!t)rim|side ?stick|stick-rim|" + _WORD + r"(?:rs|sr)_", "rim"),
    (r"ride.*bell|ride.?cup", "ride bell"),
    (r"china", "china"),
    (r"splash", "splash"),
    (r"cymbal_pedal", "hihat pedal"),
    (r"cymbal_open", "hihat open"),
    (r"cymbal_closed", "hihat closed"),
    (r"(?:hat|hh).*(?:pedal|foot|_pd?\b|_p\d?$)|pedal ?hihat|hhpedal|hat pd", "hihat pedal"),
    (r"(?:hat|hh).*(?:semi|open|_op(?:_|$)| op)|open ?hat|ohh|" + _WORD + "ho_", "hihat open"),
    (r"hi ?hat|hhat|(?:^|[^a-z])hat|hat_?closed|" + _WORD + r"(?:c?hh|rh)|closehihat|sabianhat", "hihat closed"),
    (r"crashi__ride|ride|" + _WORD + r"(?:rd|rc)\d?_", "ride"),
    (r"crash|cymbal|" + _WORD + r"(?:cc|cra)_", "crash"),
    (r"snare|" + _WORD + r"(?:sn|sd)\d?_|drum_roll", "snare"),
    (r"tom(?!pa)|" + _WORD + "ft_", "tom"),
    (r"kick|bass ?drum|drum_bass|hardhse_k|" + _WORD + r"bd", "kick"),
)


def drum_of(name: str) -> str:
    """The class that the name of a sample's file tells, or nothing where it tells none.

    Args:
        name: of the file, without suffix.
    """
    plain = name.lower()
    return next((drum or "" for pattern, drum in _PATTERNS if re.search(pattern, plain)), "")
