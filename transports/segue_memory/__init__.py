"""Memory adapters: the reference transport, store and journal, for tests and trying out.

`memory://name`: all that open the same name in one process (on one event loop at a time) share one broker, store or
journal. It lives as long as the process, or until `forget(name)`. Options of the query:

    redelivery=5     seconds after which an unacknowledged delivery comes again
    window=120       seconds for which a message id is remembered
    seed=7           reorder and repeat deliveries, as this seed says
"""

from segue_memory.shared import forget

__all__ = ["forget"]
