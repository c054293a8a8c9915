"""A Prometheus histogram that counts many values at once.

`Histogram.observe` compares a value with one bucket after the other and takes two locks: 1 µs a value, and a request
has four. Together, 256 values cost a tenth of that. `_upper_bounds`, `_buckets` and `_sum` are private names of
prometheus_client, whose minor version is pinned; tests/test_contract_prometheus.py checks them.
"""

from collections.abc import Sequence

import numpy as np
from prometheus_client import Histogram


class BulkHistogram(Histogram):
    """A histogram with `observe_all`."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Count values, as `observe` counts each."""
        buckets = np.searchsorted(self._upper_bounds, values)  # bounds are inclusive, the last one is infinite
        counts = np.bincount(buckets)
        self._sum.inc(float(np.sum(values)))
        for bucket in np.flatnonzero(counts):
            self._buckets[bucket].inc(int(counts[bucket]))
