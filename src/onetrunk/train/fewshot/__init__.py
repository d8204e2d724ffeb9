"""Few-shot methods: class means, and the choice of a method by cross-validation."""
