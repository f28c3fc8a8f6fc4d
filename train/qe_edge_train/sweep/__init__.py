"""Many trainings from one file, and one table that compares them."""
