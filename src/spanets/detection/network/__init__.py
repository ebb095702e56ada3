"""Networks of detectors, on torchvision's classes: necks, heads, anchors, batches of many sizes."""
