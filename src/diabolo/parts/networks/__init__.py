"""Networks: the only code that knows the shapes of data."""
