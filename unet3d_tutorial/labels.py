"""The structures that the network learns: their names, their label values and their colours.

They are the same in all chapters and all figures.

>>> dict(enumerate(STRUCTURES, start=1))
{1: 'left lung', 2: 'right lung', 3: 'trachea'}
"""

#: Label 0 is background; label ``n`` is ``STRUCTURES[n - 1]``.
STRUCTURES: tuple[str, ...] = ("left lung", "right lung", "trachea")

LEFT_LUNG = 1
RIGHT_LUNG = 2
TRACHEA = 3

#: Background, left lung, right lung, trachea: the classes whose HU, sides and air are known.
NUM_CLASSES = len(STRUCTURES) + 1

#: In LUNA16's masks 3 is the left lung, 4 the right lung and 5 the trachea.
FIRST_IN_LUNA16 = 3

#: Colours from Okabe and Ito's palette, which people with colour blindness can tell apart, too.
COLORS: dict[str, str] = {
    "left lung": "#0072B2",
    "right lung": "#E69F00",
    "trachea": "#009E73",
}

#: Colours of false negatives and false positives, from the same palette.
ERRORS: dict[str, str] = {
    "missed": "#56B4E9",
    "spilled over": "#D55E00",
}


def structure_names(lower_limit: int, upper_limit: int) -> tuple[str, ...]:
    """Name the structures whose values in the files are ``lower_limit`` to ``upper_limit``.

    Masks with the values 1 to 3 count from 1, as this package does; all others are taken for masks
    of LUNA16. A value that neither gives to a structure becomes ``"label 6"``.

    >>> structure_names(3, 5) == structure_names(1, 3) == STRUCTURES
    True
    >>> structure_names(4, 6)
    ('right lung', 'trachea', 'label 6')
    """
    counts_from_1 = (lower_limit, upper_limit) == (1, len(STRUCTURES))
    first = 1 if counts_from_1 else FIRST_IN_LUNA16
    names = dict(enumerate(STRUCTURES, start=first))
    values = range(lower_limit, upper_limit + 1)
    return tuple(names.get(value, f"label {value}") for value in values)
