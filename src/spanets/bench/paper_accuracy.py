"""Accuracies that the papers report; this project did not measure them."""

IMAGENET_TOP1 = {
    "spanet_small": 83.1,
    "spanet_medium": 83.5,
    "spanet_mediumx": 83.8,
    "spanet_base": 84.0,
    "spanet_basex": 84.4,
    "spanetv2_s18_pure": 83.4,
    "spanetv2_s18_hybrid": 83.9,
    "spanetv2_s36_pure": 84.4,
    "spanetv2_s36_hybrid": 84.7,
    "spanetv2_m36_pure": 84.9,
    "spanetv2_m36_hybrid": 85.3,
    "spanetv2_b36_pure": 85.0,
    "spanetv2_b36_hybrid": 85.6,
}
"""Top-1 accuracy in percent, ImageNet-1K, 224², from scratch (SPANet, Table 2; SPANetV2)."""
