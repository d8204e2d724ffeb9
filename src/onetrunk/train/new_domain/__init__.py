"""Growing: a domain joins a finished model as a pack, and nothing else moves.

The model in use is never touched while its new domain learns: a copy of the trunk with that domain
alone goes through the ordinary loop (work.py), every other domain's outputs are compared to the
bit before and after (proof.py), and only then the pack is put beside the others (shelf.py).
"""
