"""The backbones; importing a family's module registers its models with timm."""
