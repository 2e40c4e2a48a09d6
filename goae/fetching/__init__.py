"""Getting pretrained files into the cache without running anything that comes with them."""
