"""Networks of segmenters: decoders, and backbone, decoder and classifier in one module."""
