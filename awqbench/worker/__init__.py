"""The process a backend lives in, and its client. The process imports the standard library, numpy and its engine."""
