"""How a model is judged: scores, summaries, evaluation, budgets and reports."""
