"""One room a container: bytes of a file to `Decoded` pixels whose meaning is known."""
