"""Where images come from: domains, their sources, the cache, augmentation and sampling."""
