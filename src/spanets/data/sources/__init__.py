"""Where data sets are read from: folders, shards, hubs, and those that are known by name."""
