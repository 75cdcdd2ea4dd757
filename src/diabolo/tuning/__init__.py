"""Model selection without labels: what to try, what to judge by, and the search."""
