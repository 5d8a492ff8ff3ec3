"""The structures that the network learns: their names, label values and colours.

All chapters and all figures use the same ones.

>>> dict(enumerate(STRUCTURES, start=1))
{1: 'left lung', 2: 'right lung', 3: 'trachea'}
"""

#: Label 0 is background; label ``n`` is ``STRUCTURES[n - 1]``.
STRUCTURES: tuple[str, ...] = ("left lung", "right lung", "trachea")

LEFT_LUNG = 1
RIGHT_LUNG = 2
TRACHEA = 3

#: Number of classes: background, left lung, right lung, trachea.
NUM_CLASSES = len(STRUCTURES) + 1

#: First label value in LUNA16's masks: 3 is the left lung, 4 the right lung and 5 the trachea.
FIRST_IN_LUNA16 = 3

#: Colours from Okabe and Ito's palette, which people with colour blindness can tell apart.
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
    """Names of the structures whose values in the files are ``lower_limit`` to ``upper_limit``.

    Limits of 1 and 3 mean masks that count from 1, as this package's masks do. All other limits
    mean masks of LUNA16. A value without a known structure, for example 6, is named ``"label 6"``.

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
