"""Tables, figures and the page, from result files alone. Imports no torch."""
