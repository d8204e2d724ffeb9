"""Training of a new domain for a finished model, as a pack; the rest of the model does not change.

A copy of the trunk with only the new domain, the scratch model, is trained by the ordinary loop,
once for every kind of adapters that is tried. The model in use is not modified.
"""
