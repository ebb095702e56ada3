"""Readers of image formats: from the bytes of a file to `Decoded` pixels."""
