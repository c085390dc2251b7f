"""Getting published sets: what is where, fetching, checking, unpacking."""
