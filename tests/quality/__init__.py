"""Quality measured by hand: mutants and long fuzzing runs."""
