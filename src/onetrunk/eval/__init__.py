"""How a model is evaluated: scores, summaries, evaluation, budgets and reports."""
