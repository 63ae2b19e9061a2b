"""A simulator of participants in a hostile world: virtual time, a seed, and the real code of the loop."""
