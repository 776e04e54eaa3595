"""Scripts that tests run in processes of their own. Each one ends or forks in a different way."""
