"""What is learned: trunks, banks, adapters, heads, the universal network and its packs."""
