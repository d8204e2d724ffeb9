"""Training a new domain for a finished model, as a pack; nothing else in the model changes.

A copy of the trunk with the new domain alone, the scratch model, goes through the ordinary training
loop, once for every kind of adapters that is tried. The model in use is not touched.
"""
