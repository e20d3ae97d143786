"""Whole experiments: the stages of a recipe, chained through files and resumable."""
