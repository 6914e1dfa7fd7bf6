"""Whether a live source is unlike the training videos, with a false warning unlikely over weeks.

The limit is one that 1 % of videos like those of the training exceed. A source is compared with it
again and again: 15,820 windows of `LIVE_WINDOW_LEN` snippets make 30 days at 25 frames per second.
Of these 158 would be beyond it by chance, were they independent of each other.

So a source is named when its first two windows are beyond the limit, and later only when 16 in a
row are: after 5.5 and after 44 minutes at 25 frames per second. The chance that a source like the
training videos is named within 30 days was simulated for normally distributed distances, of 4,000
sources each. It depends on which fraction of their variance is between sources, and on the
correlation of a source's windows that follow each other:

    fraction between sources                  0       0.25    0.5     0.75    0.9     1
    correlation 0                             0.0 %   0.0 %   0.1 %   0.4 %   1.0 %   1.0 %
    correlation 0.5                           0.0 %   0.2 %   0.4 %   0.8 %   0.9 %   1.1 %
    correlation 0.8                           0.1 %   1.3 %   2.9 %   2.9 %   2.2 %   1.0 %
    any two in a row, correlation 0          79   %  38   %  22   %  11   %   5.9 %   1.0 %

With 1 a source's windows are all alike: it is one of the 1 % that are beyond the limit, or is not.
"""

N_FIRST_WINDOWS = 2
N_LATER_WINDOWS = 16


class UnlikeWindows:
    """Counts the windows of a live source that are unlike the training videos."""

    def __init__(self) -> None:
        self._n_windows = 0
        self._n_in_a_row = 0  # the last ones, that are unlike

    def add(self, *, is_unlike: bool) -> bool:
        """Take the next window; returns whether there are now enough to name the source."""
        self._n_windows += 1
        self._n_in_a_row = self._n_in_a_row + 1 if is_unlike else 0
        is_first = self._n_windows <= N_FIRST_WINDOWS
        return self._n_in_a_row == (N_FIRST_WINDOWS if is_first else N_LATER_WINDOWS)
