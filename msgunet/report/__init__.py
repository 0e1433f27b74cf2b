"""Tables, figures and the HTML page, built from result files alone. Does not import torch."""
