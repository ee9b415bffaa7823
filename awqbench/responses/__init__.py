"""Answers of models kept between runs, so that the same question need not be asked of the same model again."""
