"""What is made of graphs beside running them: drawings, explanations, schemas, texts, lists of what is installed."""
