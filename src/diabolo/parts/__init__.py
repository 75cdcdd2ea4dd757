"""The five kinds of part. They know nothing of each other, of data or of estimators."""
