"""Data sets: from published archives or a user's folders to PNG pairs with a manifest."""
