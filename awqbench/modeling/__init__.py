"""Names and weights of a Hugging Face model, without loading the model."""
