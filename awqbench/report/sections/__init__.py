"""What each section of the report shows, as plain data for the templates: chosen, ordered, joined and drawn."""
