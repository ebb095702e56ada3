"""What the papers report ("paper": nobody here measured these)."""

IMAGENET_TOP1 = {
    "spanet_small": 83.1,
    "spanet_medium": 83.5,
    "spanet_mediumx": 83.8,
    "spanet_base": 84.0,
    "spanet_basex": 84.4,
}
"""Top-1 accuracy in percent, ImageNet-1K, 224², trained from scratch (SPANet, Table 2)."""
