"""Data: domains, sources, tasks, the pixel pipeline, the cache, augmentation and sampling."""
