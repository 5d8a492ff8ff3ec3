"""The structures that the network learns, with the value and the colour of each: the same
everywhere in the book.

>>> {value: name for value, name in enumerate(STRUCTURES, start=1)}
{1: 'left lung', 2: 'right lung', 3: 'trachea'}
"""

#: Label 0 is background; label ``n`` is ``STRUCTURES[n - 1]``.
STRUCTURES: tuple[str, ...] = ("left lung", "right lung", "trachea")
LEFT_LUNG, RIGHT_LUNG, TRACHEA = 1, 2, 3
#: Background, left lung, right lung, trachea: the classes whose HU, sides and air are known.
NUM_CLASSES = len(STRUCTURES) + 1


def structure_names(lower_limit: int, upper_limit: int) -> tuple[str, ...]:
    """Names of the structures whose values in the files are ``lower_limit`` to ``upper_limit``.

    In LUNA16's masks 3 is the left lung, 4 the right lung and 5 the trachea; masks that hold 1 to 3
    count from 1.

    >>> structure_names(3, 5) == structure_names(1, 3) == STRUCTURES
    True
    >>> structure_names(4, 6)
    ('right lung', 'trachea', 'label 6')
    """
    first = 1 if (lower_limit, upper_limit) == (1, len(STRUCTURES)) else 3
    known = dict(enumerate(STRUCTURES, start=first))
    return tuple(
        known.get(value, f"label {value}") for value in range(lower_limit, upper_limit + 1)
    )


#: Okabe and Ito's palette, which readers with colour-blindness can tell apart too.
COLORS: dict[str, str] = {"left lung": "#0072B2", "right lung": "#E69F00", "trachea": "#009E73"}

#: False negative and false positive, of the same palette.
ERRORS: dict[str, str] = {"missed": "#56B4E9", "spilled over": "#D55E00"}
