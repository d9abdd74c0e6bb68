"""Linear regression at nodes that do different amounts of work."""
