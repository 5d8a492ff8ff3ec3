"""The structures that the network learns, with the value and the colour of each: the same everywhere in the book.

>>> {value: name for value, name in enumerate(STRUCTURES, start=1)}
{1: 'left lung', 2: 'right lung', 3: 'trachea'}
"""

#: Label 0 is background; label ``n`` is ``STRUCTURES[n - 1]``.
STRUCTURES: tuple[str, ...] = ("left lung", "right lung", "trachea")

#: Okabe and Ito's palette, which readers with colour-blindness can tell apart too.
COLORS: dict[str, str] = {"left lung": "#0072B2", "right lung": "#E69F00", "trachea": "#009E73"}

#: False negative and false positive, of the same palette.
ERRORS: dict[str, str] = {"missed": "#56B4E9", "spilled over": "#D55E00"}
