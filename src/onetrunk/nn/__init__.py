"""The networks: trunks, norms and adapters by domain, heads, packs, folding."""
