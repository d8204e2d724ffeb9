"""What is learned: a trunk, a bank for every domain, heads, packs."""
