"""Few images: class means, and a choice among methods by cross-validation."""
