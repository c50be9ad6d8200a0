"""Answers with noise: the only way for a count to leave ``measuring``.

Source:   the discrete Laplace distribution, as in ``kinds.noise``; frequent texts by a noisy threshold (Korolova et
          al., WWW 2009; Rogers, 2023), both drawn by OpenDP from the operating system's randomness.
Security: a replaced row changes the counts of a histogram by 2 in all, of two of its texts by 1 each. A histogram over
          cells that were known before is epsilon-private, delta 0. A histogram of texts tells, by showing a text at
          all, that somebody has it: the threshold is such that this happens with a probability of ``delta`` at most
          for what hangs on one row; what OpenDP's own map says of it is checked at every draw. Texts of fewer than
          ``least`` rows are never shown: their counts are lowered by ``least - 1`` before the noise, which no row can
          make more of, and raised again after it.
          Texts enter the library as their places in a list: it draws alike for all, so names do not matter, and it
          passes texts on as C does, ending at a zero.
Errors:   ``Unavailable`` without OpenDP, ``JobFailed`` if it refuses; never in its own words, which may quote a count.
Not here: what the noisy counts are used for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from sandbox.catalog.twin.cells import Whole
from sandbox.errors import JobFailed, Unavailable
from sandbox.kinds import noise

SENSITIVITY: Final = 2
DELTA_BITS: Final = 40  # of all columns of a twin together, delta is 2**-40 at most
_ODDS: Final = 100  # one in so many histograms has a cell that noise alone has filled


def scale(epsilon: Fraction) -> float:
    """Return the scale of the noise in an answer that costs ``epsilon``."""
    return noise.scale_of(SENSITIVITY, epsilon)


def histogram(counts: Whole, epsilon: Fraction) -> Whole:
    """Return the counts, each with noise of its own."""
    return noise.noisy(counts, scale(epsilon))


def doubtful(epsilon: Fraction, cells: int) -> int:
    """Return below which noisy count the noise alone may have filled one of so many cells."""
    return math.ceil(scale(epsilon) * math.log(_ODDS * cells))


def frequent(counts: Mapping[str, int], least: int, epsilon: Fraction, delta: float) -> dict[str, int]:
    """Return the texts that many rows have, each with its noisy count.

    Raises:
        Unavailable: OpenDP is not installed.
    """
    try:
        from opendp.domains import atom_domain, map_domain
        from opendp.measurements import make_laplace_threshold
        from opendp.metrics import absolute_distance, l01inf_distance
        from opendp.mod import OpenDPException, enable_features
    except ImportError:
        raise Unavailable(tell=noise.unavailable() or "opendp does not load", stage="compute") from None
    enable_features("contrib")
    width = scale(epsilon)
    texts = sorted(text for text, rows in counts.items() if rows >= least)
    lowered = {place: counts[text] - least + 1 for place, text in enumerate(texts)}
    domain = map_domain(atom_domain(T="i64"), atom_domain(T="i64"))
    metric = l01inf_distance(absolute_distance(T="i64"))
    try:
        choose = make_laplace_threshold(domain, metric, width, math.ceil(width * math.log(2 / delta)) + 1)
        if choose.map((2, SENSITIVITY, 1))[1] > delta:  # type: ignore[no-untyped-call]  # two texts, by 1 each
            raise JobFailed("the threshold of categories is too low for its delta", stage="compute")
        shown = choose(lowered)
    except OpenDPException:
        raise JobFailed("noise could not be drawn", stage="compute") from None
    return {texts[place]: int(shown[place]) + least - 1 for place in sorted(shown)}
