"""Networks of segmentation: decoders, and segmenters of backbone, decoder and classifier."""
