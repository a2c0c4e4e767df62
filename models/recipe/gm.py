"""General MIDI: names of the programs, their families, and the notes that such an instrument plays."""

from __future__ import annotations

FAMILIES = (
    *("piano", "chromatic percussion", "organ", "guitar", "bass", "strings", "ensemble", "brass"),
    *("reed", "pipe", "synth lead", "synth pad", "synth effects", "ethnic", "percussive", "sound effects"),
)
"""Eight programs each, in the order of their numbers."""

_NAMES = """
acoustic grand piano, bright acoustic piano, electric grand piano, honky-tonk piano, electric piano 1, electric piano
2, harpsichord, clavinet, celesta, glockenspiel, music box, vibraphone, marimba, xylophone, tubular bells, dulcimer,
drawbar organ, percussive organ, rock organ, church organ, reed organ, accordion, harmonica, tango accordion, nylon
guitar, steel guitar, jazz guitar, clean guitar, muted guitar, overdriven guitar, distortion guitar, guitar harmonics,
acoustic bass, fingered bass, picked bass, fretless bass, slap bass 1, slap bass 2, synth bass 1, synth bass 2,
violin, viola, cello, contrabass, tremolo strings, pizzicato strings, harp, timpani, string ensemble 1, string
ensemble 2, synth strings 1, synth strings 2, choir aahs, voice oohs, synth voice, orchestra hit, trumpet, trombone,
tuba, muted trumpet, french horn, brass section, synth brass 1, synth brass 2, soprano sax, alto sax, tenor sax,
baritone sax, oboe, english horn, bassoon, clarinet, piccolo, flute, recorder, pan flute, blown bottle, shakuhachi,
whistle, ocarina, square lead, sawtooth lead, calliope lead, chiff lead, charang lead, voice lead, fifths lead, bass
and lead, new age pad, warm pad, polysynth pad, choir pad, bowed pad, metallic pad, halo pad, sweep pad, rain,
soundtrack, crystal, atmosphere, brightness, goblins, echoes, sci-fi, sitar, banjo, shamisen, koto, kalimba, bagpipe,
fiddle, shanai, tinkle bell, agogo bells, steel drums, woodblocks, taiko drum, melodic tom, synth drum, reverse
cymbal, guitar fret noise, breath noise, seashore, bird tweet, telephone ring, helicopter, applause, gunshot
"""
PROGRAMS = tuple(" ".join(name.split()) for name in _NAMES.split(","))
"""By number, from 0."""

PLAYED = (*range(112), 112, 114)
"""Programs whose notes are rendered one by one."""

PITCHED = tuple(sorted(set(PLAYED) - {16, 17, 18, 31, 47, 55, 86, 97, 112}))
"""Programs whose notes have the pitch of their key, as measured in soundfonts: organs with a stop of 16 feet and
timpani sound an octave below it, harmonics and hits something else."""

_FAMILY_RANGES = (
    *((21, 108), (53, 100), (36, 96), (40, 88), (28, 62), (40, 88), (36, 88), (40, 82)),
    *((46, 88), (60, 98), (40, 92), (36, 88), (36, 88), (43, 86), (36, 84), (36, 84)),
)
_RANGES: dict[int, tuple[int, int]] = {
    **{11: (53, 89), 12: (45, 96), 14: (60, 84), 15: (48, 88), 19: (29, 96), 21: (48, 89), 22: (58, 94)},
    **{40: (55, 98), 41: (48, 88), 42: (36, 81), 43: (28, 60), 46: (28, 100), 47: (36, 60), 56: (54, 86)},
    **{57: (40, 74), 58: (26, 60), 59: (54, 84), 60: (36, 77), 64: (56, 88), 65: (49, 81), 66: (44, 76)},
    **{67: (36, 69), 68: (58, 91), 69: (52, 81), 70: (34, 74), 71: (50, 92), 72: (74, 106), 73: (60, 97)},
    **{112: (72, 100), 114: (52, 84)},
}


def family(program: int) -> str:
    """The family of a program."""
    return FAMILIES[program // 8]


def pitch_range(program: int) -> tuple[int, int]:
    """The lowest and the highest note that an instrument plays, roughly."""
    return _RANGES.get(program, _FAMILY_RANGES[program // 8])
