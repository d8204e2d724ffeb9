"""How a model is used: export, the mixed-domain engine and the HTTP app."""
