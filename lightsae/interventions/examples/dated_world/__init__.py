"""A synthetic world of facts that change by the year, and a model that leaks later ones."""
