"""The graph language: documents as text, read, merged and expanded into a GraphSpec."""
