"""What the user has -> Table (schema and tensors), and back."""
