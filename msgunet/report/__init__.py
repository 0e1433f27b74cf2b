"""Tables, figures and the page, from files alone; nothing here imports torch."""
